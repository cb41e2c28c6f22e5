"""What is served under which URL: one row a route, and what the small ones answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tvixstore.access import Right
from tvixstore.errors import Incomplete, InvalidData, Skipped, StorageFull, Unsupported
from tvixstore.explain import RequestKind, found
from tvixstore.http import nars, puts
from tvixstore.http.activity import activity, parse_activity
from tvixstore.http.answers import TEXT, Answer, absent, invalid, skipped
from tvixstore.http.explain import explain, parse_explain
from tvixstore.http.extras import (
    get_extra,
    parse_build_trace,
    parse_debug_info,
    parse_log,
    parse_realisation,
    put_extra,
)
from tvixstore.http.front import HttpFront, Inbox
from tvixstore.http.incoming import Incoming
from tvixstore.http.nar_files import nar_file
from tvixstore.http.narinfo import NarInfoTexts
from tvixstore.http.urls import (
    NarByHash,
    NarByNode,
    parse_nar_by_hash,
    parse_nar_by_node,
    parse_path_hash,
)
from tvixstore.log import redact
from tvixstore.nar import listing, listing_of_nar
from tvixstore.nix import STORE_DIR, nixbase32


@dataclass(slots=True)
class Call:
    """What routes see of a request, and of the front door that it came to."""

    front: HttpFront
    texts: NarInfoTexts
    method: str
    headers: Mapping[str, str]
    incoming: Incoming
    # Set when the door is about to close.
    ended: asyncio.Event

    @property
    def draining(self) -> bool:
        return self.ended.is_set()

    @property
    def inbox(self) -> Inbox:
        """Where what is put goes: only what may be put gets that far."""
        assert self.front.inbox is not None
        return self.front.inbox


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


async def _cache_info(call: Call, wanted: None) -> Answer:
    body = f"StoreDir: {STORE_DIR}\nWantMassQuery: 1\nPriority: {call.front.priority}\n".encode()
    return Answer(HTTPStatus.OK, "present", {"Content-Type": "text/x-nix-cache-info"}, body)


async def _narinfo(call: Call, path_hash: bytes) -> Answer:
    try:
        description = await call.front.path_infos.describe(path_hash)
    except Skipped as error:
        if not error.answered:
            raise
        return skipped(error)
    if description is None:
        return _no_path(path_hash)
    found(description.store_path)
    headers = {"Content-Type": "text/x-nix-narinfo"}
    return Answer(HTTPStatus.OK, "present", headers, call.texts.of(description))


async def _ls(call: Call, path_hash: bytes) -> Answer:
    try:
        info = await call.front.path_infos.get(path_hash)
        if info is None:
            return _no_path(path_hash)
        found(info.store_path)
        return await _listed(listing(call.front.content, info.node))
    except (StorageFull, Incomplete):
        # What cannot be kept can still be read: the listing is made as the NAR goes by.
        return await _ls_in_passing(call, path_hash)


async def _ls_in_passing(call: Call, path_hash: bytes) -> Answer:
    path_infos = call.front.path_infos
    description = await path_infos.describe(path_hash)
    if description is None or (stream := await path_infos.open_nar(description)) is None:
        return _no_path(path_hash)
    async with stream:
        return await _listed(listing_of_nar(stream))


async def _listed(making: Awaitable[bytes]) -> Answer:
    try:
        body = await making
    except Unsupported as error:
        # Names that are not UTF-8: for ever, so it is no failure.
        return absent(str(error))
    return Answer(HTTPStatus.OK, "present", {"Content-Type": "application/json"}, body)


async def _nar_by_hash(call: Call, wanted: NarByHash | str) -> Answer:
    if isinstance(wanted, str):
        return await nar_file(call, wanted)
    nar = await nars.nar_by_hash(call.front.path_infos, wanted)
    if nar is None:
        return absent(
            f"nobody has {nixbase32.encode(wanted.path_hash)} with the NAR hash "
            f"{nixbase32.encode(wanted.nar_sha256)}"
        )
    return await _nar(call, nar, zstd=wanted.zstd)


async def _nar_by_node(call: Call, wanted: NarByNode) -> Answer:
    nar = await nars.nar_by_node(call.front.path_infos, call.front.content, wanted)
    if nar is None:
        return absent("the content of this node is not here, nor to be had by its path")
    if nar.size != wanted.nar_size:
        return invalid(f"narsize is {wanted.nar_size}, but the NAR of that node has {nar.size}")
    return await _nar(call, nar, zstd=wanted.zstd)


async def _nar(call: Call, nar: nars.Nar, *, zstd: bool) -> Answer:
    answer = nars.compressed if zstd else nars.answer
    return await answer(nar, call.method, call.headers, call.front.pools)


async def _healthz(call: Call, wanted: None) -> Answer:
    return Answer(HTTPStatus.OK, "present", {"Content-Type": TEXT}, b"alive\n")


async def _readyz(call: Call, wanted: None) -> Answer:
    """Whether it can be used, for everybody; upstreams' names and troubles, for its users."""
    reason = "the daemon is stopping" if call.draining else call.front.ready()
    stranger = call.front.access.check("read", call.headers.get("Authorization")) is not None
    state = {
        "ready": reason is None,
        "reason": _clean(reason),
        "substituters": [
            {
                "name": upstream.name,
                "state": "up" if upstream.up else "down",
                "since": upstream.since,
                "last_error": _clean(upstream.last_error),
            }
            for upstream in (() if stranger else call.front.status())
        ],
    }
    return Answer(
        HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE,
        "present" if reason is None else "unknown",
        {"Content-Type": "application/json", "Cache-Control": "no-store"},
        json.dumps(state).encode() + b"\n",
        reason=reason,
    )


async def _metrics(call: Call, wanted: None) -> Answer:
    call.front.refresh_metrics()
    body = generate_latest(call.front.metrics.registry)
    return Answer(HTTPStatus.OK, "present", {"Content-Type": CONTENT_TYPE_LATEST}, body)


def _clean(text: str | None) -> str | None:
    return None if text is None else redact(text)


def _no_path(path_hash: bytes) -> Answer:
    return absent(f"nobody has {nixbase32.encode(path_hash)}")


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
        _narinfo,
        puts.put_narinfo,
        told="lookup",
    ),
    _row(
        "nar",
        r"/nar/(?:tvix|snix)-castore/([^/.]*)",
        parse_nar_by_node,
        _nar_by_node,
        told="nar",
    ),
    _row(
        "nar",
        r"/nar/([^/]*-[^/]*)\.nar",
        _parse_dashed,
        _nar_by_hash,
        puts.put_nar,
        _parse_dashed_name,
        told="nar",
    ),
    _row(
        "nar",
        r"/nar/(?:tvix|snix)-castore/([^/.]*)\.zst",
        partial(parse_nar_by_node, zstd=True),
        _nar_by_node,
        told="nar",
    ),
    _row(
        "nar",
        r"/nar/([^/]*-[^/]*)\.nar\.zst",
        partial(_parse_dashed, suffix=".nar.zst"),
        _nar_by_hash,
        puts.put_nar,
        partial(_parse_dashed_name, suffix=".nar.zst"),
        told="nar",
    ),
    _row("nar", r"/nar/([^/]+)", _parse_name, nar_file, puts.put_nar),
    _row("ls", r"/([^/]*)\.ls", parse_path_hash, _ls, puts.put_listing, told="lookup"),
    _row("nix-cache-info", r"/nix-cache-info()", _parse_nothing, _cache_info, puts.put_cache_info),
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
    _row("healthz", r"/healthz()", _parse_nothing, _healthz, right=None),
    _row("readyz", r"/readyz()", _parse_nothing, _readyz, right=None),
    _row("metrics", r"/metrics()", _parse_nothing, _metrics),
    _row("activity", r"/_tvix/activity()", parse_activity, activity),
    _row("explain", r"/_tvix/explain/([^/]*)", parse_explain, explain),
)
