"""What an HTTP cache's answers mean: for narinfos, for NARs, for downloads that go on."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.pathinfo.nix.reached import HASH, NARINFO, reach
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore import __version__
from tvixstore.errors import ConfigError, CorruptData, Unavailable
from tvixstore.pathinfo.nix.answers import MAX_RETRY_AFTER, is_html, retry_after
from tvixstore.pathinfo.nix.upstream import MAX_NARINFO_BYTES, Resume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEXT = "StorePath: /nix/store/x\nURL: nar/x.nar.xz\n"
NAR = bytes(range(256)) * 2000
ETAG = '"the-one"'
DATE = "Fri, 20 Nov 2020 12:00:00 GMT"


@pytest.fixture
async def server() -> AsyncIterator[UpstreamServer]:
    async with UpstreamServer() as server:
        yield server


# narinfos


async def test_a_narinfo_is_its_text(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(body=TEXT.encode()))
    async with reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == TEXT
    [seen] = server.log
    assert seen.headers["User-Agent"] == f"tvixstore/{__version__}"
    assert seen.headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in seen.headers


@pytest.mark.parametrize("path", ["/some/cache", "/some/cache/", "/a%2Fb"])
async def test_the_url_is_a_folder_with_or_without_its_slash(
    server: UpstreamServer, path: str
) -> None:
    async with reach(server.url + path) as upstream:
        assert await upstream.narinfo(HASH) is None
    assert [seen.target for seen in server.log] == [path.rstrip("/") + NARINFO]


@pytest.mark.parametrize("status", [404, 410, 403])
async def test_404_410_and_a_bare_403_are_absent(server: UpstreamServer, status: int) -> None:
    body = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
    server.on(NARINFO, Reply(status=status, body=body, headers={"Content-Type": "text/xml"}))
    async with reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) is None


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html; charset=utf-8", b""),
        ("text/plain", b"\xef\xbb\xbf\n <!DOCTYPE HTML><title>Blocked</title>"),
        ("application/octet-stream", b"<html lang=en>"),
        ("application/xml", b'<?xml version="1.0"?><!DOCTYPE html><html>'),
    ],
)
async def test_a_403_with_a_page_is_unknown(
    server: UpstreamServer, content_type: str, body: bytes
) -> None:
    server.on(NARINFO, Reply(status=403, body=body, headers={"Content-Type": content_type}))
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="cache: .*403 with a page"):
            await upstream.narinfo(HASH)


async def test_a_403_with_an_encoded_page_is_unknown(server: UpstreamServer) -> None:
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    server.on(NARINFO, Reply(status=403, body=gzip.compress(b"<html>", mtime=0), headers=headers))
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="403"):
            await upstream.narinfo(HASH)


async def test_a_200_with_a_page_is_corrupt(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(body=b"<html>Please log in</html>"))
    async with reach(server.url) as upstream:
        with pytest.raises(CorruptData, match=r"cache: http://.*\.narinfo: .* with a page"):
            await upstream.narinfo(HASH)


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 402, 405, 418, 451])
async def test_another_status_is_unknown_and_named(server: UpstreamServer, status: int) -> None:
    server.on(NARINFO, Reply(status=status))
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match=f"cache: {server.url}.* {status}") as failed:
            await upstream.narinfo(HASH)
    assert failed.value.retry_after is None


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 599])
async def test_busy_and_broken_are_unknown_with_their_retry_after(
    server: UpstreamServer, status: int
) -> None:
    server.on(NARINFO, Reply(status=status, headers={"Retry-After": "7"}))
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match=str(status)) as failed:
            await upstream.narinfo(HASH)
    assert failed.value.retry_after == 7


def test_retry_after_is_seconds_or_a_date_and_capped() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after(soon) or 0) <= 100
    assert retry_after(" 12 ") == 12
    assert retry_after("9" * 10_000) == MAX_RETRY_AFTER
    assert retry_after("Fri, 31 Dec 2100 23:59:59 GMT") == MAX_RETRY_AFTER
    assert retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert retry_after("Fri, 31 Dec 1999 23:59:59 -0000") == 0
    assert [retry_after(text) for text in (None, "", "soon", "-1", "1.5", "١")] == [None] * 6


def test_a_narinfo_is_no_page() -> None:
    assert not is_html("text/x-nix-narinfo", TEXT.encode())
    assert not is_html("text/xml", b"<?xml version='1.0'?><Error/>")


@pytest.mark.parametrize("status", [401, 407])
async def test_refused_credentials_are_unknown_and_said_loudly_once_an_outage(
    server: UpstreamServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    refused, fine = Reply(status=status), Reply(body=TEXT.encode())
    server.on(NARINFO, refused, refused, fine, refused)
    async with reach(server.url) as upstream:
        for _ in range(2):
            with pytest.raises(Unavailable, match="credentials"):
                await upstream.narinfo(HASH)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert await upstream.narinfo(HASH) == TEXT
        with pytest.raises(Unavailable, match="credentials"):
            await upstream.narinfo(HASH)
    assert [record.levelname for record in caplog.records if record.levelno > 20] == ["ERROR"] * 2


@pytest.mark.parametrize("announced", [None, -1])
async def test_a_narinfo_is_bounded(server: UpstreamServer, announced: int | None) -> None:
    body = b"x" * (MAX_NARINFO_BYTES + 1)
    server.on(NARINFO, Reply(body=body[:-1], announced=announced), Reply(body=body))
    async with reach(server.url) as upstream:
        assert len(await upstream.narinfo(HASH) or "") == MAX_NARINFO_BYTES
        with pytest.raises(CorruptData, match="longer than"):
            await upstream.narinfo(HASH)


async def test_a_narinfo_that_is_not_utf8_is_corrupt(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(body=b"StorePath: \xff\n"))
    async with reach(server.url) as upstream:
        with pytest.raises(CorruptData, match="UTF-8"):
            await upstream.narinfo(HASH)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT.encode(), mtime=0)),
        ("x-gzip", gzip.compress(TEXT.encode(), mtime=0)),
        ("identity", TEXT.encode()),
        ("Gzip, zstd", zstandard.compress(gzip.compress(TEXT.encode(), mtime=0))),
    ],
)
async def test_an_encoded_narinfo_is_decoded(
    server: UpstreamServer, encoding: str, body: bytes
) -> None:
    server.on(NARINFO, Reply(body=body, headers={"Content-Encoding": encoding}))
    async with reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == TEXT


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(bytes(MAX_NARINFO_BYTES + 1), mtime=0)),
        ("gzip", gzip.compress(TEXT.encode(), mtime=0)[:-1]),
        ("gzip", TEXT.encode()),
        ("pack200", TEXT.encode()),
    ],
)
async def test_a_narinfo_whose_encoding_is_wrong_is_corrupt(
    server: UpstreamServer, encoding: str, body: bytes
) -> None:
    server.on(NARINFO, Reply(body=body, headers={"Content-Encoding": encoding}))
    async with reach(server.url) as upstream:
        with pytest.raises(CorruptData, match="cache: "):
            await upstream.narinfo(HASH)


async def test_a_narinfo_that_is_cut_off_is_unknown(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(body=TEXT.encode(), end="close", after=10))
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match=f"10 bytes of {len(TEXT)}"):
            await upstream.narinfo(HASH)


async def test_lookups_share_kept_connections(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(status=404, body=b"no such thing"))
    async with reach(server.url) as upstream:
        for _ in range(5):
            assert await upstream.narinfo(HASH) is None
        assert server.connections == 1


# NARs


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("nar/x.nar.xz", "/cache/nar/x.nar.xz"),
        ("nar/%41%2f+a.nar?sig=%2F+b%20c&d='\"", "/cache/nar/%41%2f+a.nar?sig=%2F+b%20c&d='\""),
        ("nar//x", "/cache/nar//x"),
        ("odd:name", "/cache/odd:name"),
        ("?key=1", "/cache/?key=1"),
        ("/elsewhere/x", "/elsewhere/x"),
        ("../up/./x", "/up/x"),
        ("nar/a b\u00fc", "/cache/nar/a%20b%C3%BC"),
    ],
)
async def test_a_nars_url_is_sent_to_the_letter(
    server: UpstreamServer, url: str, target: str
) -> None:
    async with reach(server.url + "/cache") as upstream:
        assert await upstream.open_nar(url) is None
    assert [seen.target for seen in server.log] == [target]


async def test_a_nars_url_may_be_absolute(server: UpstreamServer) -> None:
    server.on("/x?y=1", Reply(body=NAR))
    async with UpstreamServer() as home, reach(home.url) as upstream:
        body = await upstream.open_nar(f"{server.url}/x?y=1")
        assert body is not None
        assert await body.read_all() == NAR
    assert home.log == []


@pytest.mark.parametrize("url", ["ftp://host/x", "http://", "https://host:99999/x", "http://[x]/"])
async def test_a_nars_url_that_cannot_be_one_is_corrupt(server: UpstreamServer, url: str) -> None:
    async with reach(server.url) as upstream:
        with pytest.raises(CorruptData, match="cache: the URL of a NAR"):
            await upstream.open_nar(url)


async def test_a_body_says_what_it_is(server: UpstreamServer) -> None:
    headers = {"ETag": ETAG, "Last-Modified": DATE}
    server.on("/n", Reply(body=NAR, headers=headers))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n?secret=1")
        assert body is not None
        assert (body.offset, body.length, body.validator) == (0, len(NAR), ETAG)
        assert body.encodings == ()
        assert body.url == f"{server.url}/n?…"
        assert await body.read_all() == NAR


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": 'W/"weak"', "Last-Modified": DATE}, DATE),
        ({"ETag": 'W/"weak"'}, None),
        ({}, None),
        ({"ETag": ETAG, "Content-Encoding": "zstd"}, None),
    ],
)
async def test_only_what_promises_the_same_bytes_can_be_resumed(
    server: UpstreamServer, headers: dict[str, str], validator: str | None
) -> None:
    server.on("/n", Reply(body=NAR, headers=headers))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        async with body:
            assert body.validator == validator


async def test_encodings_of_a_nar_are_told_outermost_first(server: UpstreamServer) -> None:
    server.on("/n", Reply(body=NAR, headers={"Content-Encoding": "gzip, identity, zstd"}))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        async with body:
            assert body.encodings == ("zstd", "gzip")
            # Not decoded here: these bytes are not even zstd.
            assert await body.read_all() == NAR


@pytest.mark.parametrize("status", [404, 410])
async def test_a_nar_that_is_gone_is_none(server: UpstreamServer, status: int) -> None:
    server.on("/n", Reply(status=status, body=b"gone"))
    async with reach(server.url, max_connections=1) as upstream:
        assert await upstream.open_nar("n") is None
        assert await upstream.open_nar("n") is None


@pytest.mark.parametrize("status", [401, 403, 206, 204, 400, 500, 503])
async def test_any_other_status_of_a_nar_is_unknown(server: UpstreamServer, status: int) -> None:
    server.on("/n", Reply(status=status, headers={"Retry-After": "3"}))
    async with reach(server.url, max_connections=1) as upstream:
        for _ in range(2):
            with pytest.raises(Unavailable, match=f"{server.url}/n.*{status}") as failed:
                await upstream.open_nar("n")
    assert failed.value.retry_after == (3 if status >= 500 else None)


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("announced", [None, -1])
async def test_a_nar_that_breaks_off_says_how_far_it_came(
    server: UpstreamServer, end: str, announced: int | None
) -> None:
    server.on("/n", Reply(body=NAR, announced=announced, end=end, after=1000))  # type: ignore[arg-type]
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        total = "an unknown number" if announced else str(len(NAR))
        async with body:
            # A reset may overtake what was sent before it.
            with pytest.raises(Unavailable, match=rf"\d+ bytes of {total}: "):
                async for _ in body:
                    pass


async def test_a_nar_that_stalls_is_given_up(server: UpstreamServer) -> None:
    server.on("/n", Reply(body=NAR, end="stall", after=1000))
    async with reach(server.url, stall_timeout=0.05) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        async with body:
            with pytest.raises(
                Unavailable, match=f"no byte for 0.05 s, after 1000 bytes of {len(NAR)}"
            ):
                async for _ in body:
                    pass
        await server.abandoned()


async def test_downloads_leave_connections_to_lookups(server: UpstreamServer) -> None:
    gate = asyncio.Event()
    server.on("/n", Reply(body=NAR, pause=gate, after=10))
    async with reach(server.url, max_connections=3) as upstream:
        bodies = [await upstream.open_nar("n"), await upstream.open_nar("n")]
        waiting = asyncio.create_task(upstream.open_nar("n"))
        assert await upstream.narinfo(HASH) is None
        assert len(server.seen("/n")) == 2
        assert bodies[0] is not None and bodies[1] is not None
        await bodies[0].aclose()
        await bodies[0].aclose()
        third = await waiting
        assert third is not None
        gate.set()
        assert await third.read_all() == await bodies[1].read_all() == NAR


# Resumption


@pytest.mark.parametrize(
    ("headers", "validator"), [({"ETag": ETAG}, ETAG), ({"Last-Modified": DATE}, DATE)]
)
async def test_a_download_goes_on_where_it_broke_off(
    server: UpstreamServer, headers: dict[str, str], validator: str
) -> None:
    server.on("/n", Reply(body=NAR, headers=headers, ranges=True))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n", Resume(1000, validator))
        assert body is not None
        assert (body.offset, body.length, body.validator) == (1000, len(NAR), validator)
        assert await body.read_all() == NAR[1000:]
    [seen] = server.log
    assert seen.headers["Range"] == "bytes=1000-"
    assert seen.headers["If-Range"] == validator


async def test_a_resumed_download_that_ends_early_says_so(server: UpstreamServer) -> None:
    part = {"Content-Range": f"bytes 1000-1999/{len(NAR)}", "ETag": ETAG}
    server.on("/n", Reply(status=206, body=NAR[1000:2000], headers=part))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n", Resume(1000, ETAG))
        assert body is not None
        with pytest.raises(Unavailable, match=f"2000 bytes of {len(NAR)}"):
            await body.read_all()


@pytest.mark.parametrize("ranges", [True, False])
async def test_what_changed_or_cannot_be_resumed_starts_again(
    server: UpstreamServer, ranges: bool
) -> None:
    server.on("/n", Reply(body=NAR, headers={"ETag": '"another"'}, ranges=ranges))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n", Resume(1000, ETAG))
        assert body is not None
        assert (body.offset, body.validator) == (0, '"another"')
        assert await body.read_all() == NAR
    assert len(server.log) == 1


LIES = [
    Reply(status=416),
    Reply(status=412),
    *(
        Reply(status=206, body=NAR[1000:], headers=headers)
        for headers in (
            {"Content-Range": f"bytes 999-{len(NAR) - 2}/{len(NAR)}", "ETag": ETAG},
            {"Content-Range": f"bytes 1000-{len(NAR)}/{len(NAR)}", "ETag": ETAG},
            {"Content-Range": "bytes 1000-999/1000", "ETag": ETAG},
            {"Content-Range": f"bytes */{len(NAR)}", "ETag": ETAG},
            {"Content-Range": f"bytes 1000-{len(NAR) - 1}/{len(NAR)}", "ETag": '"another"'},
            {"Content-Range": f"bytes 1000-{len(NAR) - 1}/{len(NAR)}"},
            {"Content-Type": "multipart/byteranges; boundary=x", "ETag": ETAG},
            {
                "Content-Range": f"bytes 1000-{len(NAR) - 1}/{len(NAR)}",
                "ETag": ETAG,
                "Content-Encoding": "gzip",
            },
        )
    ),
]


@pytest.mark.parametrize("lie", LIES)
async def test_a_part_that_is_not_the_one_asked_for_is_not_believed(
    server: UpstreamServer, lie: Reply
) -> None:
    server.on("/n", lie, Reply(body=NAR))
    async with reach(server.url, max_connections=1) as upstream:
        body = await upstream.open_nar("n", Resume(1000, ETAG))
        assert body is not None
        assert body.offset == 0
        assert await body.read_all() == NAR
    assert ["Range" in seen.headers for seen in server.log] == [True, False]


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_gone_when_resumed_is_none(server: UpstreamServer, status: int) -> None:
    server.on("/n", Reply(status=status))
    async with reach(server.url) as upstream:
        assert await upstream.open_nar("n", Resume(1000, ETAG)) is None


async def test_resuming_at_0_is_starting(server: UpstreamServer) -> None:
    server.on("/n", Reply(body=NAR))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n", Resume(0, ETAG))
        assert body is not None
        assert await body.read_all() == NAR
    assert "Range" not in server.log[0].headers


# The URL


@pytest.mark.parametrize(
    "url", ["ftp://h/", "http://", "https://h/?x=1", "gopher:", "http://h:0/", "file://host/x"]
)
async def test_an_url_that_no_cache_can_have_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="cache: "):
        async with reach(url):
            pass
