"""Structured logs on standard error: `time level event key=value …`, or the same as JSON.

A logger takes an event, which is a constant that can be searched for, and fields. Credentials and
URL queries are taken out of every field on the way out, so that no caller has to think of it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal, TextIO

_URL_SECRETS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^/@\s?#\"']*@)?"
    r"(?P<rest>[^\s?#\"']*)(?P<query>\?[^\s#\"']*)?",
    re.I,
)
_BARE = re.compile(r"[^\s\"=]+")


def redact(text: str) -> str:
    """`text` with `user:password@` and the query left out of each URL in it."""

    def clean(match: re.Match[str]) -> str:
        return f"{match['scheme']}{match['rest']}{'?…' if match['query'] else ''}"

    return _URL_SECRETS.sub(clean, text)


class Logger:
    """Events with fields, over one of the standard library's loggers."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: object) -> None:
        self._write(logging.ERROR, event, fields, exc_info)

    def _write(
        self,
        level: int,
        event: str,
        fields: dict[str, object],
        exc_info: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)


class _Formatter(logging.Formatter):
    def record_fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return {
            key: redact(value if isinstance(value, str) else str(value))
            if not isinstance(value, bool | int | float)
            else value
            for key, value in fields.items()
            if value is not None
        }

    @staticmethod
    def time_of(record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class TextFormatter(_Formatter):
    """One line an event; values with spaces, quotes or line ends are written as JSON strings."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.time_of(record)} {record.levelname.lower()} {redact(record.getMessage())}"
        for key, value in self.record_fields(record).items():
            line += f" {key}={_text_value(value)}"
        return line


class JsonFormatter(_Formatter):
    """One JSON object a line, with the same fields."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": self.time_of(record),
                "level": record.levelname.lower(),
                "event": redact(record.getMessage()),
                **self.record_fields(record),
            },
            ensure_ascii=False,
        )


def _text_value(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def configure(
    level: str = "info",
    format: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
    *,
    without: Collection[str] = (),
) -> None:
    """Sends the package's events, and warnings of the libraries below, to `stream` (stderr).

    Events `without` which the log can do are left out.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(lambda record: record.msg not in without)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tvixstore").setLevel(level.upper())
