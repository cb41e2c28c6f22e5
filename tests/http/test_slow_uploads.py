"""Clients that begin an upload and do not go on, or not as they said."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.http.support import connected, serving
from tests.http.uploading import taking
from tvixstore.http import Limits

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NAR_MAGIC = b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0"


async def test_an_upload_that_stops_coming_is_timed_out_and_is_no_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with taking(tmp_path) as here:
        here.front.limits = Limits(body_stall=0.3)
        async with serving(here.front) as server:
            for target in ("/nar/x.nar", "/nix-cache-info"):
                async with connected(server.addresses[0]) as client:
                    client.send("PUT", target, Content_Length="1000")
                    client.writer.write(NAR_MAGIC)
                    reply = await client.receive()
                    assert reply.status == 408, reply
                    # Whoever is told so has no connection any more.
                    assert await client.reader.read() == b""
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_body_that_makes_no_sense_later_on_is_refused_at_once(tmp_path: Path) -> None:
    async with taking(tmp_path) as here:
        for target in ("/nar/x.nar", "/nix-cache-info"):
            async with connected(here.address) as client:
                client.send("PUT", target, Transfer_Encoding="chunked")
                client.writer.write(b"18\r\n" + NAR_MAGIC + b"\r\n")
                await client.writer.drain()
                await asyncio.sleep(0.1)
                client.writer.write(b"no number\r\n")
                async with asyncio.timeout(10):
                    reply = await client.receive()
                    assert (reply.status, reply.text) == (
                        400,
                        "the body of the request is malformed\n",
                    )
                    assert await client.reader.read() == b""


async def test_a_body_that_was_asked_for_has_to_begin_soon(tmp_path: Path) -> None:
    async with taking(tmp_path) as here:
        here.front.limits = Limits(body_begin=0.3)
        async with (
            serving(here.front) as server,
            connected(server.addresses[0]) as client,
        ):
            # As Nix 2.8 tries again.
            client.send("PUT", "/nar/x.nar", Content_Length="1000", Expect="100-continue")
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            reply = await client.receive()
            assert reply.status == 408, reply
            assert b"came for 0.3 s" in reply.body
