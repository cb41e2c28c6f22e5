"""HTTP: what clients send in request lines and headers, and what upstreams answer in theirs."""

from __future__ import annotations

import base64
from typing import Any

from tests.fuzz.target import Target, of_text
from tvixstore.castore import Digest, FileNode, SymlinkNode, encode_node
from tvixstore.http.ranges import Part, Unsatisfiable, matches, select
from tvixstore.http.routes import find
from tvixstore.http.urls import NarByNode, parse_nar_by_node
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.nix.answers import MAX_RETRY_AFTER, retry_after
from tvixstore.pathinfo.nix.urls import Url

_ETAG = f'"{"0" * 52}"'
_DIGITS = "0123456789abcdfghijklmnpqrsvwxyz"
_NODES = [
    base64.urlsafe_b64encode(encode_node(node)).rstrip(b"=").decode()
    for node in (FileNode(Digest(bytes(32)), 300), SymlinkNode(b"target"))
]


def _route(text: str) -> Any:
    """What the front door makes of a request's target."""
    path, _, query = text.partition("?")
    if (found := find(path)) is None:
        return None
    route, rest = found
    return [method.parse(rest, query) for method in route.methods.values()]


def _nar_by_node(text: str) -> NarByNode:
    return parse_nar_by_node(*text.split("?", 1)) if "?" in text else parse_nar_by_node(text, "")


def _nar_by_node_law(data: bytes, wanted: NarByNode) -> None:
    node, _, query = data.decode(errors="replace").partition("?")
    assert base64.urlsafe_b64encode(encode_node(wanted.node)).rstrip(b"=").decode() == node
    path = "" if wanted.path_hash is None else f"&path={nixbase32.encode(wanted.path_hash)}"
    assert parse_nar_by_node(node, f"narsize={wanted.nar_size}{path}") == wanted


def _headers(data: bytes) -> tuple[int, str, str | None, str]:
    """The size of a body, Range, If-Range and If-None-Match, a line each."""
    size, ranges, if_range, if_none_match, *_ = (
        *data.decode(errors="replace").split("\n"),
        "",
        "",
        "",
    )
    digits = "".join(digit for digit in size[:12] if digit in "0123456789")
    return int(digits or "0"), ranges, if_range or None, if_none_match


def _select(data: bytes) -> Part | None:
    size, ranges, if_range, if_none_match = _headers(data)
    assert matches(if_none_match, _ETAG) in (True, False)
    return select(ranges, if_range, _ETAG, size)


def _select_law(data: bytes, part: Part | None) -> None:
    size, *_ = _headers(data)
    assert part is None or (0 <= part.offset < size and 0 < part.length <= size - part.offset)


def _retry_after_law(data: bytes, seconds: float | None) -> None:
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


def _url_law(data: bytes, url: Url) -> None:
    bare = Url.parse(url.sent)
    assert (bare.origin, bare.target) == (url.origin, url.target)
    # It goes into a request line as it is.
    assert url.target.isascii() and url.target.isprintable() and " " not in url.target
    assert url.target.startswith("/")


def _join(text: str) -> Url:
    return Url.parse("https://cache.example/a/b?c=d").join(text)


REQUESTS: dict[str, Target[Any]] = {
    "route": Target(
        of_text(_route),
        [
            target.encode()
            for target in (
                f"/{_DIGITS}.narinfo",
                f"/{_DIGITS}.ls",
                f"/nar/{_DIGITS}-{'0' * 52}.nar",
                f"/nar/tvix-castore/{_NODES[0]}?narsize=400&path={_DIGITS}",
                f"/nar/snix-castore/{_NODES[1]}?narsize=1",
                "/nix-cache-info",
                "/metrics?x=y",
            )
        ],
        words=(b"/", b"..", b"%2f", b"?", b"&", b"=", b".narinfo", b"\0"),
    ),
    "nar-url": Target(
        of_text(_nar_by_node),
        [
            f"{_NODES[0]}?narsize=400&path={_DIGITS}".encode(),
            f"{_NODES[1]}?narsize=18446744073709551615".encode(),
        ],
        _nar_by_node_law,
        words=(b"narsize=", b"&path=", b"%30", b"+", b"&" * 20),
    ),
    "range": Target(
        _select,
        [
            f"{size}\n{ranges}\n{if_range}\n{tags}".encode()
            for size, ranges, if_range, tags in (
                (1000, "bytes=0-99", "", "*"),
                (1000, "bytes=500-", _ETAG, f'W/{_ETAG}, "a"'),
                (0, "bytes=-5", "", ""),
                (1000, "bytes=0-1,5-9", '"other"', '"a", "b'),
                (99999999999, "BYTES = 18446744073709551615-", "", ""),
            )
        ],
        _select_law,
        (Unsatisfiable,),
        words=(b"bytes=", b"-", b",", b'"', b"W/", b"99999999999999999999", b"\xd9\xa3"),
    ),
    "retry-after": Target(
        of_text(retry_after),
        [
            b"120",
            b"Fri, 31 Dec 1999 23:59:59 GMT",
            b"Fri, 31 Dec 2099 23:59:59 +0100",
            b"1 Jan 1 00:00 -2400",
            b"31 Dec 9999 23:59:59 -2359",
        ],
        _retry_after_law,
        (),
        words=(b"Jan", b"9999", b"-0000", b"+9999", b":", b",", b"GMT", b"\xd9\xa3"),
    ),
    "url": Target(
        of_text(Url.parse),
        [
            b"https://user:p%40ss@cache.example:8443/a/../b?x=%20#f",
            b"http://[2001:db8::1]:80/",
            "http://b\u00fccher.example/\u00e4?\u00f6".encode(),
        ],
        _url_law,
        (ValueError,),
        words=(b"://", b"@", b"[", b"]", b":", b"/../", b"?", b"#", b"xn--", b"\xe3\x80\x82"),
    ),
    "url-reference": Target(
        of_text(_join),
        [b"nar/x.nar.xz?sig=a%2Fb", b"../y", b"//other.example/z", b"?q", b"http://x/"],
        _url_law,
        (ValueError,),
        words=(b"://", b"//", b"/../", b"/./", b"?", b"#", b"a:b"),
    ),
}
