"""From a compose file's text to a checked `Config`, with all mistakes reported at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tvixstore.compose.environment import Place, interpolate
from tvixstore.compose.mistakes import Mistake, config_error, explain, unknown_key
from tvixstore.compose.model import LATER, Config, Daemon, Section, Store, Substituter
from tvixstore.compose.values import host_of, quote

_SHORT = ("store", "substituters")
_LONG = ("blobservices", "directoryservices", "pathinfoservices")
# Names that the lowered graph has use for itself.
RESERVED_NAMES = frozenset({"root", "local"})
# A compose file is small; this bounds what a wrong path (a disk, a log) costs.
_LONGEST = 4 << 20

Model = TypeVar("Model", bound=Section)


def load_file(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The composition in the file `path`. Raises `ConfigError`, with all mistakes."""
    name = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise config_error(name, [Mistake("", "", f"cannot be read: {reason}")]) from None
    if len(data) > _LONGEST:
        raise config_error(name, [Mistake("", "", f"is longer than {_LONGEST} bytes")])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise config_error(name, [Mistake("", "", f"is not UTF-8 (at line {line})")]) from None
    return load_text(text, name, path.absolute().parent, environ)


def load_text(
    text: str, name: str, folder: Path, environ: Mapping[str, str] = os.environ
) -> Config:
    """The composition in `text`; messages call it `name`, and paths are relative to `folder`.

    Raises `ConfigError`, with all mistakes.
    """
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise config_error(name, [Mistake("", "", "is nested too deeply")]) from None
    except ValueError as error:
        # Not only TOMLDecodeError: integers of thousands of digits, too.
        raise config_error(name, [Mistake("", "", f"not TOML: {error}")]) from None
    return _Loader(name, folder.absolute(), environ).load(document)


class _Loader:
    """One load: the mistakes found so far, and what they are found with."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.environ = environ
        self.mistakes: list[Mistake] = []

    def load(self, document: dict[str, object]) -> Config:
        self._check_sections(document)
        daemon_table = self._table(document, "daemon")
        daemon = self._section(Daemon, "[daemon]", daemon_table)
        if daemon is not None:
            self._check_listeners(daemon)
        store = self._section(Store, "[store]", self._table(document, "store"))
        tables = self._substituter_tables(document)
        labels = [_label(number, table) for number, table in enumerate(tables, 1)]
        substituters = []
        for label, table in zip(labels, tables, strict=True):
            found = len(self.mistakes)
            substituters.append(self._section(Substituter, label, table))
            self._check_keys(label, table, daemon_table)
            self._check_connection(label, table)
            self._check_name(label, table, tables[: labels.index(label)])
            self.mistakes[found:] = _in_order_of(table, self.mistakes[found:])
        if daemon is None or store is None or self.mistakes:
            raise config_error(self.name, self.mistakes)
        whole = [substituter for substituter in substituters if substituter is not None]
        return Config(self.name, self.folder, daemon, store, _named(whole))

    def _check_sections(self, document: Mapping[str, object]) -> None:
        short = [f"[{key}]" for key in _SHORT if key in document]
        for section in _LONG:
            if section not in document:
                continue
            if short:
                self._mistake(
                    f"[{section}]",
                    "",
                    f"the long form does not mix with {' and '.join(short)} in one file: "
                    "keep one of the two forms",
                )
            nodes = document[section]
            for node in nodes if isinstance(nodes, dict) and nodes else ("…",):
                self._mistake(f"[{section}.{node}]", "", f"the long form {LATER}")
        for key in document:
            if key not in ("daemon", *_SHORT, *_LONG):
                text = unknown_key(key, ["daemon", *_SHORT])
                self._mistake("", key, text.replace("unknown key", "unknown section"))

    def _table(self, document: Mapping[str, object], key: str) -> dict[str, object]:
        table = document.get(key, {})
        if isinstance(table, dict):
            return table
        self._mistake(f"[{key}]", "", f'must be a table: write "[{key}]" on a line of its own')
        return {}

    def _substituter_tables(self, document: Mapping[str, object]) -> list[dict[str, object]]:
        tables = document.get("substituters", [])
        if isinstance(tables, list) and all(isinstance(table, dict) for table in tables):
            return tables
        self._mistake(
            "[substituters]",
            "",
            'must be an array of tables: write "[[substituters]]" above each substituter',
        )
        return []

    def _section(self, model: type[Model], label: str, table: Mapping[str, object]) -> Model | None:
        """`table` as a `model`, or `None` after what is wrong with it was noted."""
        wrong: list[tuple[Place, str]] = []
        filled = interpolate(dict(table), self.environ, wrong)
        found = [Mistake(label, str(place[0]), text) for place, text in wrong]
        unset = {mistake.key for mistake in found}
        made = None
        try:
            made = model.model_validate(filled, context={"folder": self.folder})
        except ValidationError as error:
            explained = [explain(detail, model) for detail in error.errors(include_url=False)]
            found += [
                replace(mistake, section=label) for mistake in explained if mistake.key not in unset
            ]
        self.mistakes += _in_order_of(table, found)
        return made

    def _check_listeners(self, daemon: Daemon) -> None:
        if daemon.http.kind == daemon.grpc.kind == "off":
            self._mistake("[daemon]", "http", 'grpc and http are both "off": nothing is served')
        elif daemon.http == daemon.grpc and (daemon.http.kind == "unix" or daemon.http.port != 0):
            self._mistake("[daemon]", "http", f'grpc and http are both "{daemon.http}"')

    def _check_keys(
        self, label: str, table: Mapping[str, object], daemon: Mapping[str, object]
    ) -> None:
        unsigned = table.get("unsigned", False)
        if unsigned is True and table.get("public_keys"):
            self._mistake(label, "unsigned", "contradicts public_keys: keep one of the two")
        if unsigned is False and not table.get("public_keys") and not daemon.get("public_keys"):
            self._mistake(
                label,
                "public_keys",
                "is missing: write the cache's public key, or unsigned = true "
                "to trust whatever this cache says",
            )

    def _check_connection(self, label: str, table: Mapping[str, object]) -> None:
        url = table.get("url")
        if not isinstance(url, str):
            return
        if url.startswith("file:"):
            for key in ("netrc_file", "token_file", "ca_file", "proxy"):
                if key in table:
                    self._mistake(label, key, "has no use for a file: URL: leave it out")
        credentials = [key for key in ("netrc_file", "token_file") if key in table]
        if "@" in url.partition("://")[2].partition("/")[0]:
            credentials.append("user:password in the url")
        if len(credentials) > 1:
            self._mistake(
                label, credentials[0], f"contradicts {credentials[1]}: keep one of the two"
            )

    def _check_name(
        self, label: str, table: Mapping[str, object], earlier: Sequence[Mapping[str, object]]
    ) -> None:
        name = table.get("name")
        if not isinstance(name, str):
            return
        if name in RESERVED_NAMES:
            self._mistake(label, "name", f"{quote(name)} is taken by the graph: pick another")
        for number, other in enumerate(earlier, 1):
            if other.get("name") == name:
                self._mistake(
                    label, "name", f"{quote(name)} is the name of #{number} already: pick another"
                )
                return

    def _mistake(self, section: str, key: str, text: str) -> None:
        self.mistakes.append(Mistake(section, key, text))


def _label(number: int, table: Mapping[str, object]) -> str:
    url, name = table.get("url"), table.get("name")
    called = (host_of(url) if isinstance(url, str) else "") or (
        quote(name)[1:-1] if isinstance(name, str) else ""
    )
    return f"[[substituters]] #{number}" + (f" ({called})" if called else "")


def _in_order_of(table: Mapping[str, object], mistakes: Sequence[Mistake]) -> list[Mistake]:
    """`mistakes` in the order in which the file has their keys, missing ones last."""
    order = {key: position for position, key in enumerate(table)}
    return sorted(mistakes, key=lambda mistake: order.get(mistake.key, len(order)))


def _named(substituters: Sequence[Substituter]) -> tuple[Substituter, ...]:
    """Each with a name of its own: the host where none was given, numbered on a clash."""
    taken = {substituter.name for substituter in substituters} | RESERVED_NAMES
    named = []
    for substituter in substituters:
        if not substituter.name:
            name = next(name for name in _candidates(substituter.url) if name not in taken)
            taken.add(name)
            substituter = substituter.model_copy(update={"name": name})
        named.append(substituter)
    return tuple(named)


def _candidates(url: str) -> Iterator[str]:
    host = host_of(url) or "substituter"
    yield host
    number = 2
    while True:
        yield f"{host}-{number}"
        number += 1
