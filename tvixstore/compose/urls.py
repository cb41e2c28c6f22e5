"""Service URLs: a node in a line, wherever the name of one may stand.

Each URL is a table in another notation, so it is turned into one, which is then checked by the same
model as a table in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, parse_qsl

from tvixstore.compose.key_types import LATER
from tvixstore.compose.nodes import REFUSED_TYPES, Kind
from tvixstore.compose.values import check_grpc_url, quote, split_url

Table = dict[str, object]

_EXAMPLES = {
    "memory": '"memory://"',
    "grpc": '"grpc+http://host:port"',
    "objectstore": '"objectstore+file:///path"',
    "nix": '"nix+https://host"',
    "cache": '"cache://?near=…&far=…"',
}


def is_service_url(name: str) -> bool:
    """Whether a reference is a URL, and not the name of a node."""
    return "://" in name


def table_of_url(kind: Kind, url: str) -> Table:
    """The table that `url` stands for, as a node of that kind. Raises `ValueError`."""
    head, mark, query = url.partition("?")
    # Keys may be separated by spaces as they are, which no URL has.
    parts = split_url(head + mark + query.replace(" ", "%20"))
    family = parts.scheme.partition("+")[0]
    reader = _READERS.get(family)
    types = _TYPES[kind]
    if family in ("redb", "bigtable", "objectstore") and family in REFUSED_TYPES[kind]:
        raise ValueError(f"{quote(url)} {REFUSED_TYPES[kind][family]}")
    if reader is None or family not in types:
        raise ValueError(
            f"{quote(url)} is not a service URL that stands for such a node: "
            f"write {', '.join(_EXAMPLES[name] for name in types)}, or the name of a node"
        )
    return reader(url, parts)


def _memory(url: str, parts: SplitResult) -> Table:
    if url != "memory://":
        raise ValueError(f'{quote(url)}: memory has no places: write "memory://"')
    return {"type": "memory"}


def _grpc(url: str, parts: SplitResult) -> Table:
    check_grpc_url(url)
    return {"type": "grpc", "url": url}


def _objectstore(url: str, parts: SplitResult) -> Table:
    scheme = parts.scheme.partition("+")[2]
    if scheme not in ("file", "memory"):
        raise ValueError(
            f'the scheme "{parts.scheme}" {LATER}: '
            'write "objectstore+file:///path" or "objectstore+memory:///"'
        )
    rest = url.partition("+")[2].partition("?")[0]
    options = _query(url, parts, None)
    return {"type": "objectstore", "object_store_url": rest, "object_store_options": options}


def _nix(url: str, parts: SplitResult) -> Table:
    if parts.scheme not in ("nix+http", "nix+https"):
        raise ValueError(f'{quote(url)} is not a URL that this takes: write "nix+https://host"')
    query = _query(url, parts, ("trusted-public-keys", "blob_service", "directory_service"))
    table: Table = {"type": "nix", "base_url": url.partition("+")[2].partition("?")[0]}
    keys = query.pop("trusted-public-keys", None)
    if keys is not None:
        table["public_keys"] = keys.split()
    return {**table, **query}


def _cache(url: str, parts: SplitResult) -> Table:
    if parts.scheme != "cache" or parts.netloc or parts.path:
        raise ValueError(f'{quote(url)} names a place: write "cache://?near=…&far=…"')
    query = _query(url, parts, ("near", "far"))
    if missing := [key for key in ("near", "far") if key not in query]:
        raise ValueError(f"{quote(url)} lacks {missing[0]}: write {_EXAMPLES['cache']}")
    return {"type": "cache", **query}


def _query(url: str, parts: SplitResult, known: Iterable[str] | None) -> dict[str, str]:
    """The query of `url`; `known` of `None` takes whatever there is."""
    found: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if known is not None and key not in known:
            raise ValueError(
                f'{quote(url)} has "{key}" in its query, which nobody knows: '
                f"what may be there is {', '.join(known)}"
            )
        if key in found:
            raise ValueError(f'{quote(url)} has "{key}" twice in its query: keep one')
        found[key] = value
    if parts.fragment:
        raise ValueError(f"{quote(url)} has a fragment: leave it out, or write # as %23")
    return found


_READERS: dict[str, Callable[[str, SplitResult], Table]] = {
    "memory": _memory,
    "grpc": _grpc,
    "objectstore": _objectstore,
    "nix": _nix,
    "cache": _cache,
}
_TYPES: dict[Kind, tuple[str, ...]] = {
    "blobs": ("memory", "grpc", "objectstore", "cache"),
    "directories": ("memory", "grpc", "cache"),
    "path_infos": ("memory", "grpc", "nix", "cache"),
}
