"""From a compose file's text to a checked `Config`, with all mistakes reported at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tvixstore.compose.config import Config
from tvixstore.compose.long import SECTIONS, load_graph
from tvixstore.compose.mistakes import Mistake, config_error, unknown_key
from tvixstore.compose.model import Daemon, Store
from tvixstore.compose.sections import Sections
from tvixstore.compose.shared_paths import store_at
from tvixstore.compose.short import load_substituters

_SHORT = ("store", "substituters")
_LONG = tuple(SECTIONS.values())
# A compose file is small; this bounds what a wrong path (a disk, a log) costs.
_LONGEST = 4 << 20


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
    return load_document(document, name, folder, environ)


def load_document(
    document: Mapping[str, object],
    name: str,
    folder: Path,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The composition in `document`, which is what a TOML file would have been parsed to.

    Raises `ConfigError`, with all mistakes.
    """
    sections = Sections(folder.absolute(), environ)
    _check_sections(sections, document)
    daemon_table = sections.table(document, "daemon")
    daemon = sections.section(Daemon, "[daemon]", daemon_table)
    if daemon is not None:
        _check_listeners(sections, daemon)
        _check_access(sections, daemon)
    store = sections.section(Store, "[store]", sections.table(document, "store"))
    substituters = load_substituters(sections, document, daemon_table)
    graph = None
    if any(key in document for key in _LONG):
        whole = not any(key in document for key in _SHORT)
        graph = load_graph(sections, document, daemon, whole=whole)
    if daemon is None or store is None or sections.mistakes:
        raise config_error(name, sections.mistakes)
    if graph is not None:
        store = store_at(graph, daemon.state)
    return Config(name, sections.folder, daemon, store, substituters, graph)


def _check_sections(sections: Sections, document: Mapping[str, object]) -> None:
    short = [f"[{key}]" for key in _SHORT if key in document]
    for key in _LONG:
        if key in document and short:
            sections.mistake(
                f"[{key}]",
                "",
                f"the long form does not mix with {' and '.join(short)} in one file: "
                "keep one of the two forms",
            )
    for key in document:
        known = ["daemon", *_SHORT, *_LONG]
        if key not in known:
            text = unknown_key(key, known)
            sections.mistake("", key, text.replace("unknown key", "unknown section"))


def _check_listeners(sections: Sections, daemon: Daemon) -> None:
    if daemon.http.kind == daemon.grpc.kind == "off":
        sections.mistake("[daemon]", "http", 'grpc and http are both "off": nothing is served')
    elif daemon.http == daemon.grpc and (daemon.http.kind == "unix" or daemon.http.port != 0):
        sections.mistake("[daemon]", "http", f'grpc and http are both "{daemon.http}"')


def _check_access(sections: Sections, daemon: Daemon) -> None:
    for key, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("client_ca", "tls_cert")):
        if getattr(daemon, key) is not None and getattr(daemon, other) is None:
            sections.mistake("[daemon]", key, f"is of no use without {other}: write both")
    if not daemon.anonymous_read and daemon.tokens_file is None:
        sections.mistake(
            "[daemon]",
            "anonymous_read",
            "is false and there is no tokens_file: nobody could read anything; write one",
        )
