"""The short form: `[[substituters]]`, what two of their keys have to do with each other, names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.model import Substituter
from tvixstore.compose.sections import Sections, in_order_of
from tvixstore.compose.values import host_of, is_grpc_url, quote

# Names that the lowered graph has use for itself.
RESERVED_NAMES = frozenset({"root", "local"})

# What there is of a connection in neither of them.
_NOT_OF_FILES = ("netrc_file", "token_file", "ca_file", "proxy")
_NOT_OF_GRPC = ("netrc_file", "proxy", "connect_timeout", "stall_timeout", "max_connections")


def load_substituters(
    sections: Sections, document: Mapping[str, object], daemon: Mapping[str, object]
) -> tuple[Substituter, ...]:
    """The substituters of `document`, those without mistakes, each with a name of its own."""
    tables = _tables(sections, document)
    loaded = []
    for number, table in enumerate(tables, 1):
        label = _label(number, table)
        found = len(sections.mistakes)
        substituter = sections.section(Substituter, label, table)
        if substituter is not None:
            loaded.append(substituter)
        sections.mistakes += [
            Mistake(label, key, text)
            for key, text in (
                *_check_keys(table, daemon),
                *check_connection(table, "url"),
                *_check_name(table, tables[: number - 1]),
            )
        ]
        sections.mistakes[found:] = in_order_of(table, sections.mistakes[found:])
    return _named(loaded)


def check_connection(table: Mapping[str, object], url_key: str) -> Iterator[tuple[str, str]]:
    """What is wrong between the URL in `table` and the other keys of a connection there."""
    url = table.get(url_key)
    if not isinstance(url, str):
        return
    if url.startswith("file:"):
        for key in _NOT_OF_FILES:
            if key in table:
                yield key, "has no use for a file: URL: leave it out"
    if is_grpc_url(url):
        for key in _NOT_OF_GRPC:
            if key in table:
                yield key, "has no use for a grpc URL: leave it out"
        return
    credentials = [key for key in ("netrc_file", "token_file") if key in table]
    if "@" in url.partition("://")[2].partition("/")[0]:
        credentials.append(f"user:password in the {url_key}")
    if len(credentials) > 1:
        yield credentials[0], f"contradicts {credentials[1]}: keep one of the two"


def _tables(sections: Sections, document: Mapping[str, object]) -> list[dict[str, object]]:
    tables = document.get("substituters", [])
    if isinstance(tables, list) and all(isinstance(table, dict) for table in tables):
        return tables
    sections.mistake(
        "[substituters]",
        "",
        'must be an array of tables: write "[[substituters]]" above each substituter',
    )
    return []


def _label(number: int, table: Mapping[str, object]) -> str:
    url, name = table.get("url"), table.get("name")
    called = (host_of(url) if isinstance(url, str) else "") or (
        quote(name)[1:-1] if isinstance(name, str) else ""
    )
    return f"[[substituters]] #{number}" + (f" ({called})" if called else "")


def _check_keys(
    table: Mapping[str, object], daemon: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    unsigned = table.get("unsigned", False)
    if unsigned is True and table.get("public_keys"):
        yield "unsigned", "contradicts public_keys: keep one of the two"
    if unsigned is False and not table.get("public_keys") and not daemon.get("public_keys"):
        yield (
            "public_keys",
            (
                "is missing: write the cache's public key, or unsigned = true "
                "to trust whatever this cache says"
            ),
        )


def _check_name(
    table: Mapping[str, object], earlier: Sequence[Mapping[str, object]]
) -> Iterator[tuple[str, str]]:
    name = table.get("name")
    if not isinstance(name, str):
        return
    if name in RESERVED_NAMES:
        yield "name", f"{quote(name)} is taken by the graph: pick another"
    for number, other in enumerate(earlier, 1):
        if other.get("name") == name:
            yield "name", f"{quote(name)} is the name of #{number} already: pick another"
            return


def _named(substituters: Sequence[Substituter]) -> tuple[Substituter, ...]:
    """Each with a name of its own: the host where none was given, numbered on a clash."""
    taken = {substituter.name for substituter in substituters} | RESERVED_NAMES
    named = []
    for substituter in substituters:
        if not substituter.name:
            name = free_name(host_of(substituter.url) or "substituter", taken)
            taken.add(name)
            substituter = substituter.model_copy(update={"name": name})
        named.append(substituter)
    return tuple(named)


def free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with a number behind it if that is taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name
