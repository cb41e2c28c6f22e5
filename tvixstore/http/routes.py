"""What is served under which URL: one row a route."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvixstore.access import Right
from tvixstore.errors import InvalidData
from tvixstore.explain import RequestKind
from tvixstore.http import health, puts, reads
from tvixstore.http.activity import activity, parse_activity
from tvixstore.http.answers import Answer
from tvixstore.http.call import Call
from tvixstore.http.explain import explain, parse_explain
from tvixstore.http.extras import (
    get_extra,
    parse_build_trace,
    parse_debug_info,
    parse_log,
    parse_realisation,
    put_extra,
)
from tvixstore.http.nar_files import nar_file
from tvixstore.http.urls import NarByHash, parse_nar_by_hash, parse_nar_by_node, parse_path_hash


@dataclass(frozen=True, slots=True)
class Method:
    """What one method of a route does, for whom has the `right`; `None` is for everybody.

    `parse` makes a value of what the route's pattern holds in its group and of the query, or raises
    `InvalidData`; `answer` is then given that value.
    """

    right: Right | None
    parse: Callable[[str, str], Any]
    answer: Callable[[Call, Any], Awaitable[Answer]]
    # What it is called where it is told of.
    call: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """URLs whose path fits `pattern`, and the methods that they have."""

    name: str
    pattern: re.Pattern[str]
    methods: Mapping[str, Method]
    # What reading here is, to whoever asks afterwards why the answer was what it was.
    told: RequestKind | None = None


def find(path: str) -> tuple[Route, str] | None:
    """The route of `path` and what it is to parse, or `None` if nothing is there."""
    for route in ROUTES:
        if (match := route.pattern.fullmatch(path)) is not None:
            return route, match[1]
    return None


def _parse_nothing(text: str, query: str) -> None:
    return None


def _parse_name(text: str, query: str) -> str:
    if not text.isascii():
        raise InvalidData("the name of a file is of ASCII characters")
    return text


def _parse_dashed_name(text: str, query: str, *, suffix: str = ".nar") -> str:
    return _parse_name(f"{text}{suffix}", query)


def _parse_dashed(text: str, query: str, *, suffix: str = ".nar") -> NarByHash | str:
    """Our own name of a NAR, or one that whoever uploaded it made up."""
    try:
        return parse_nar_by_hash(text, query, zstd=suffix != ".nar")
    except InvalidData:
        return _parse_dashed_name(text, query, suffix=suffix)


Parse = Callable[[str, str], Any]
Handle = Callable[[Call, Any], Awaitable[Answer]]


def _row(
    name: str,
    pattern: str,
    parse: Parse,
    answer: Handle,
    put: Handle | None = None,
    parse_put: Parse | None = None,
    right: Right | None = "read",
    told: RequestKind | None = None,
) -> Route:
    """A route to read, and to write if there is something to `put` it with."""
    methods = {
        method: Method(right, parse, answer, f"{method} {name}") for method in ("GET", "HEAD")
    }
    if put is not None:
        methods["PUT"] = Method("write", parse_put or parse, put)
    return Route(name, re.compile(pattern, re.ASCII), methods, told)


# What is asked for most comes first. NARs that are not called as ours have the name that whoever
# uploaded them gave them, or they are other caches' NARs.
ROUTES = (
    _row(
        "narinfo",
        r"/([^/]*)\.narinfo",
        parse_path_hash,
        reads.narinfo,
        puts.put_narinfo,
        told="lookup",
    ),
    _row(
        "nar",
        r"/nar/(?:tvix|snix)-castore/([^/.]*)",
        parse_nar_by_node,
        reads.nar_by_node,
        told="nar",
    ),
    _row(
        "nar",
        r"/nar/([^/]*-[^/]*)\.nar",
        _parse_dashed,
        reads.nar_by_hash,
        puts.put_nar,
        _parse_dashed_name,
        told="nar",
    ),
    _row(
        "nar",
        r"/nar/(?:tvix|snix)-castore/([^/.]*)\.zst",
        partial(parse_nar_by_node, zstd=True),
        reads.nar_by_node,
        told="nar",
    ),
    _row(
        "nar",
        r"/nar/([^/]*-[^/]*)\.nar\.zst",
        partial(_parse_dashed, suffix=".nar.zst"),
        reads.nar_by_hash,
        puts.put_nar,
        partial(_parse_dashed_name, suffix=".nar.zst"),
        told="nar",
    ),
    _row("nar", r"/nar/([^/]+)", _parse_name, nar_file, puts.put_nar),
    _row("ls", r"/([^/]*)\.ls", parse_path_hash, reads.ls, puts.put_listing, told="lookup"),
    _row(
        "nix-cache-info",
        r"/nix-cache-info()",
        _parse_nothing,
        reads.cache_info,
        puts.put_cache_info,
    ),
    _row("realisation", r"/realisations/([^/]*)\.doi", parse_realisation, get_extra, put_extra),
    _row(
        "build-trace",
        r"/build-trace-v2/([^/]*/[^/]*)\.doi",
        parse_build_trace,
        get_extra,
        put_extra,
    ),
    _row("log", r"/log/([^/]*)", parse_log, get_extra, put_extra),
    _row("debuginfo", r"/debuginfo/([^/]*)", parse_debug_info, get_extra, put_extra),
    _row("healthz", r"/healthz()", _parse_nothing, health.healthz, right=None),
    _row("readyz", r"/readyz()", _parse_nothing, health.readyz, right=None),
    _row("metrics", r"/metrics()", _parse_nothing, health.metrics),
    _row("activity", r"/_tvix/activity()", parse_activity, activity),
    _row("explain", r"/_tvix/explain/([^/]*)", parse_explain, explain),
)
