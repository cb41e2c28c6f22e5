"""What a route answers, before it is on the wire, and how errors read over HTTP."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from tvixstore.errors import (
    InvalidData,
    ReadOnly,
    Skipped,
    StorageFull,
    StoreError,
    TooLong,
    Unavailable,
    Untrusted,
)
from tvixstore.extras import Conflict
from tvixstore.log import redact
from tvixstore.streams import ByteStream

TEXT = "text/plain; charset=utf-8"
# Seconds: what Retry-After says when nobody knows better, and what it says at most.
_RETRY_AFTER = 2
_MAX_RETRY_AFTER = 60
# What is not in it is unknown.
_REFUSALS: Final[dict[type, HTTPStatus]] = {
    Conflict: HTTPStatus.CONFLICT,
    TooLong: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InvalidData: HTTPStatus.BAD_REQUEST,
    Untrusted: HTTPStatus.FORBIDDEN,
    ReadOnly: HTTPStatus.FORBIDDEN,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
}
_NOT_IN_HEADERS = re.compile(r"[^\x20-\x7e]")


@dataclass(slots=True)
class Answer:
    """A status with a whole `body`, or with a `stream` of `length` bytes that its sender closes.

    A `length` of `None` is not known before the end (of a HEAD, it is not told): the stream itself
    has to break where it falls short.
    `outcome` is for the metrics: present, stored, absent, unknown, skipped, invalid or
    error.
    """

    status: int
    outcome: str
    headers: Mapping[str, str]
    body: bytes = b""
    stream: ByteStream | None = None
    length: int | None = 0
    reason: str | None = field(default=None, kw_only=True)
    # Whether the stream goes on until somebody leaves, a good end then. It needs no service
    # of the front that it was asked of, and keeps nothing of that from being closed.
    endless: bool = field(default=False, kw_only=True)


def text(status: int, outcome: str, reason: str, **headers: str) -> Answer:
    """An answer that is one line for people; `X_Name` is the header X-Name."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    reason = redact(reason)
    body = f"{reason}\n".encode("utf-8", "backslashreplace")
    return Answer(status, outcome, {"Content-Type": TEXT, **fields}, body, reason=reason)


def absent(reason: str) -> Answer:
    return text(HTTPStatus.NOT_FOUND, "absent", reason)


def invalid(reason: str) -> Answer:
    return text(HTTPStatus.BAD_REQUEST, "invalid", reason)


def not_taken(error: StoreError) -> Answer:
    """Why what was put is not taken.

    Nix gives up at once on any 4xx but 408 and 429, and tries four times more on any 5xx: so 5xx is
    what may be over in a moment.
    """
    for kind in type(error).__mro__:
        if (status := _REFUSALS.get(kind)) is not None:
            reason = str(error) or kind.__name__
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return text(status, "invalid", reason)
            return text(status, "unknown", reason, Retry_After=str(_RETRY_AFTER))
    return unknown(error)


def unknown(error: StoreError) -> Answer:
    """Nobody knows: never a 404, which clients remember."""
    wait: float | None = error.retry_after if isinstance(error, Unavailable) else None
    seconds = _RETRY_AFTER if wait is None else min(max(math.ceil(wait), 1), _MAX_RETRY_AFTER)
    return text(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unknown",
        str(error) or type(error).__name__,
        Retry_After=str(seconds),
        Cache_Control="no-store",
    )


def skipped(error: Skipped) -> Answer:
    """Absent, but for substituters declared optional that are down: nobody may remember it."""
    return text(
        HTTPStatus.NOT_FOUND,
        "skipped",
        str(error),
        X_Tvix_Skipped=_NOT_IN_HEADERS.sub("?", ", ".join(error.names)),
        Cache_Control="no-store",
    )


def broken() -> Answer:
    """A mistake of ours; what it was is in the log."""
    return text(HTTPStatus.INTERNAL_SERVER_ERROR, "error", "internal error")
