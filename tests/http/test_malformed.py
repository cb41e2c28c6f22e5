"""What strangers send: always a 4xx with the reason, never a traceback, never a hung connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.support import DescribedPaths, Store, connected, counted, front_of, serving

if TYPE_CHECKING:
    from tvixstore.http import HttpFront

GARBAGE = {
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method": b" / HTTP/1.1\r\n\r\n",
    "blank target": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad header": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "nul in header": b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length and chunked": (
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "bad length": b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "bad authority": b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
async def test_what_is_no_request_is_400_and_the_end(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    front = front_of(DescribedPaths(None))
    reply = await _exchange(front, sent)
    assert reply.split(b" ")[1] == b"400", reply
    assert b"Traceback" not in reply
    assert counted(front, "requests_total", route="other", status="400", answer="invalid") == 1
    assert not caplog.records


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a" * 20_000 + b": b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: 1\r\n" % i for i in range(1000)) + b"\r\n",
    ],
    ids=["target", "header value", "header name", "headers"],
)
async def test_what_is_too_long_is_refused(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    reply = await _exchange(front_of(DescribedPaths(None)), sent)
    assert reply.split(b" ")[1] in (b"400", b"431"), reply
    assert len(reply) < 1000
    assert not caplog.records


async def test_a_head_without_an_end_is_bounded() -> None:
    """A client that goes on sending header bytes is refused instead of buffered."""
    async with serving(front_of(DescribedPaths(None))) as server:
        async with connected(server.addresses[0]) as client:
            client.writer.write(b"GET / HTTP/1.1\r\nX: ")
            sent = 0
            try:
                while sent < 1 << 20:
                    client.writer.write(b"a" * 4096)
                    sent += 4096
                    await client.writer.drain()
                    await asyncio.sleep(0)
            except ConnectionError:
                pass
            assert sent < 1 << 20 or await client.reader.read()


_PATHS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=80),
    st.from_regex(r"/[0-9a-z]{0,40}\.(narinfo|ls)", fullmatch=True),
    st.from_regex(r"/nar/[0-9a-z]{0,60}-?[0-9a-z]{0,60}\.nar", fullmatch=True),
    st.from_regex(
        r"/nar/(tvix|snix)-castore/[A-Za-z0-9_=%-]{0,60}\?(narsize|path)=[0-9a-z&=%]{0,40}",
        fullmatch=True,
    ),
)
_HEADERS = st.dictionaries(
    st.sampled_from(["Range", "If-Range", "If-None-Match", "Accept", "Connection", "Upgrade"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    max_size=3,
)


@settings(max_examples=150)
@given(target=_PATHS, headers=_HEADERS)
def test_no_target_and_no_header_makes_a_traceback(target: str, headers: dict[str, str]) -> None:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", "Connection: close", *lines, "", ""])
    front, reply = asyncio.run(_fuzz(head.encode()))
    assert reply.startswith(b"HTTP/1.")
    # Nothing that is made up here is there, but for nix-cache-info and its like.
    assert reply.split(b" ")[1] in (b"400", b"404", b"200", b"431"), reply
    for status in ("500", "503"):
        for answer in ("error", "unknown"):
            assert not counted(front, "requests_total", route="other", status=status, answer=answer)


@settings(max_examples=100)
@given(sent=st.binary(max_size=300))
def test_no_bytes_make_a_traceback(sent: bytes) -> None:
    # A whole request behind it, since what could still become one is waited for.
    end = b"\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    _, reply = asyncio.run(_fuzz(sent + end))
    assert reply.split(b" ")[1].startswith(b"4"), reply


async def _fuzz(sent: bytes) -> tuple[HttpFront, bytes]:
    store = Store()
    front = front_of(store.path_infos, store.content)
    return front, await _exchange(front, sent)


async def _exchange(front: HttpFront, sent: bytes) -> bytes:
    """Everything that comes back; the client says that it sends no more."""
    async with serving(front) as server, connected(server.addresses[0]) as client:
        client.writer.write(sent)
        await client.writer.drain()
        # A first byte, if any: what ends half-open is closed without an answer.
        reply = await asyncio.wait_for(client.reader.read(65536), 20)
        if reply:
            client.writer.write_eof()
            reply += await asyncio.wait_for(client.reader.read(), 20)
        return reply
