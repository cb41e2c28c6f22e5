"""How an HTTP cache is reached: redirects, credentials, proxies, TLS, time limits, cancellation."""

from __future__ import annotations

import asyncio
import base64
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.pathinfo.nix.reached import HASH, NARINFO, chain, reach
from tests.support.certificates import Authority, make_authority
from tests.support.connect_proxy import ConnectProxy
from tests.support.upstream_server import Reply, UpstreamServer, redirect
from tvixstore.errors import CorruptData, Unavailable, Unreachable
from tvixstore.pathinfo.nix.upstream import Resume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

TEXT = "StorePath: /nix/store/x\n"
FOUND = Reply(body=TEXT.encode())
NAR = bytes(range(256)) * 1000


@pytest.fixture
async def server() -> AsyncIterator[UpstreamServer]:
    async with UpstreamServer() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[UpstreamServer]:
    """Another origin: the same host at another port."""
    async with UpstreamServer() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path, "cache.example")


def with_login(url: str, login: str = "user:pass%40word") -> str:
    return url.replace("://", f"://{login}@")


BASIC = "Basic " + base64.b64encode(b"user:pass@word").decode()


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/there?a=%2F", "there?a=%2F", "x/../there?a=%2F"])
async def test_redirects_are_followed_to_the_letter(
    server: UpstreamServer, status: int, location: str
) -> None:
    server.on(NARINFO, redirect(location, status))
    server.on("/there?a=%2F", FOUND)
    async with reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) == TEXT
        assert server.connections == 1


async def test_ten_redirects_are_followed_and_no_more(server: UpstreamServer) -> None:
    for hop in range(11):
        server.on(f"/{hop}", redirect(f"/{hop + 1}"))
    server.on("/11", Reply(body=NAR))
    async with reach(server.url, max_connections=1) as upstream:
        body = await upstream.open_nar("1")
        assert body is not None
        assert await body.read_all() == NAR
        with pytest.raises(Unavailable, match="more than 10 redirects"):
            await upstream.open_nar("0")


async def test_a_redirect_in_a_circle_is_found_at_once(server: UpstreamServer) -> None:
    server.on(NARINFO, redirect("/a"))
    server.on("/a", redirect("/b"))
    server.on("/b", redirect("/a"))
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="in a circle"):
            await upstream.narinfo(HASH)
    assert len(server.log) == 3


@pytest.mark.parametrize("location", ["", "ftp://host/x", "http://", "http://bad host/"])
async def test_a_redirect_to_nowhere_is_unknown(server: UpstreamServer, location: str) -> None:
    server.on(NARINFO, Reply(status=302, headers={"Location": location}))
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match="cannot be followed"):
            await upstream.narinfo(HASH)


async def test_credentials_do_not_follow_to_another_origin(
    server: UpstreamServer, other: UpstreamServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    server.on(NARINFO, redirect("/moved"))
    server.on("/moved", redirect(f"{other.url}/there"))
    other.on("/there", redirect(f"{server.url}/back"))
    server.on("/back", FOUND)
    async with reach(server.url, token_file=token) as upstream:
        assert await upstream.narinfo(HASH) == TEXT
    assert [seen.headers.get("Authorization") for seen in server.log] == [
        "Bearer sesame",
        "Bearer sesame",
        # Where it went is not ours to decide any more once it has been elsewhere.
        None,
    ]
    assert [seen.headers.get("Authorization") for seen in other.log] == [None]


async def test_a_signed_url_that_refuses_authorization_works(
    server: UpstreamServer, other: UpstreamServer
) -> None:
    server.on("/n", redirect(f"{other.url}/bucket/n?X-Amz-Signature=%2Fabc"))
    other.otherwise(
        lambda seen: Reply(status=400) if "Authorization" in seen.headers else Reply(body=NAR)
    )
    async with reach(with_login(server.url)) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        assert await body.read_all() == NAR
    assert server.log[0].headers["Authorization"] == BASIC
    assert [seen.target for seen in other.log] == ["/bucket/n?X-Amz-Signature=%2Fabc"]


async def test_no_credentials_go_from_https_to_http(
    other: UpstreamServer, authority: Authority
) -> None:
    other.on("/n", Reply(body=NAR))
    async with UpstreamServer(authority.server) as server:
        server.on("/n", redirect(f"{other.url}/n"))
        async with reach(with_login(server.url), ca_file=authority.ca_file) as upstream:
            body = await upstream.open_nar("n")
            assert body is not None
            assert await body.read_all() == NAR
        assert server.log[0].headers["Authorization"] == BASIC
    assert "Authorization" not in other.log[0].headers


async def test_a_redirected_download_resumes_from_the_original_url(
    server: UpstreamServer, other: UpstreamServer
) -> None:
    server.on("/n", redirect(f"{other.url}/1"), redirect(f"{other.url}/2"))
    whole = Reply(body=NAR, headers={"ETag": '"e"'}, ranges=True)
    other.on("/2", whole)
    other.on("/1", Reply(body=NAR, headers={"ETag": '"e"'}, end="close", after=1000))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None and body.validator is not None
        with pytest.raises(Unavailable, match=rf"{server.url}/n \(redirected to {other.url}/1\)"):
            await body.read_all()
        body = await upstream.open_nar("n", Resume(1000, body.validator))
        assert body is not None
        assert await body.read_all() == NAR[1000:]
    assert len(server.log) == 2


# Proxies


async def test_http_goes_through_the_proxy_of_the_environment(
    server: UpstreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("/n?a=%2F", Reply(body=NAR))
    async with ConnectProxy(login="me:p w", routes={"cache.example:80": server.port}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", with_login(proxy.url, "me:p%20w"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with reach("http://cache.example", proxy=None) as upstream:
            body = await upstream.open_nar("n?a=%2F")
            assert body is not None
            assert await body.read_all() == NAR
        assert proxy.log == ["GET http://cache.example/n?a=%2F HTTP/1.1"]
    assert server.log[0].headers["Host"] == "cache.example"


async def test_https_goes_through_a_tunnel(authority: Authority) -> None:
    async with (
        UpstreamServer(authority.server) as server,
        ConnectProxy(login="me:pw", routes={"cache.example:443": server.port}) as proxy,
    ):
        server.on(NARINFO, FOUND)
        settings = {"proxy": with_login(proxy.url, "me:pw"), "ca_file": authority.ca_file}
        async with reach(with_login("https://cache.example"), **settings) as upstream:
            assert await upstream.narinfo(HASH) == TEXT
        assert proxy.log == ["CONNECT cache.example:443 HTTP/1.1"]
        [seen] = server.log
        assert seen.headers["Authorization"] == BASIC
        assert "Proxy-Authorization" not in seen.headers


@pytest.mark.parametrize(("status", "said"), [(407, "credentials"), (403, "403"), (502, "502")])
async def test_a_proxy_that_does_not_connect_us_is_unknown(
    authority: Authority, status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        ConnectProxy(refuse=status) as proxy,
        reach("https://cache.example", proxy=proxy.url) as upstream,
    ):
        for _ in range(2):
            with pytest.raises(Unavailable, match=f"cache: https://cache.example.*proxy.*{said}"):
                await upstream.narinfo(HASH)
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(loud) == (1 if status == 407 else 0)


async def test_a_proxy_that_is_not_there_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with reach("https://cache.example", proxy=f"http://127.0.0.1:{port}") as upstream:
        with pytest.raises(Unavailable, match=f"no connection to its proxy 127.0.0.1:{port}"):
            await upstream.narinfo(HASH)


# TLS


async def test_a_private_authority_is_trusted_where_it_is_named(authority: Authority) -> None:
    async with UpstreamServer(authority.server) as server:
        server.on(NARINFO, FOUND)
        async with reach(server.url) as upstream:
            with pytest.raises(Unavailable, match="certificate .*not to be trusted.*ca_file"):
                await upstream.narinfo(HASH)
        async with reach(server.url, ca_file=authority.ca_file) as upstream:
            assert await upstream.narinfo(HASH) == TEXT


async def test_ssl_cert_file_is_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with UpstreamServer(authority.server) as server:
        server.on(NARINFO, FOUND)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with reach(server.url) as upstream:
            assert await upstream.narinfo(HASH) == TEXT
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        async with reach(server.url) as upstream:
            with pytest.raises(Unavailable, match=r"cache: .*none\.pem \(SSL_CERT_FILE\)"):
                await upstream.narinfo(HASH)


async def test_a_ca_file_that_cannot_be_used_is_named_and_read_again_later(
    authority: Authority, tmp_path: Path
) -> None:
    ca_file = tmp_path / "office.pem"
    async with UpstreamServer(authority.server) as server:
        server.on(NARINFO, FOUND)
        async with reach(server.url, ca_file=ca_file) as upstream:
            for content in (None, "no certificate"):
                if content is not None:
                    ca_file.write_text(content)
                with pytest.raises(Unavailable, match=r"cache: .*office\.pem cannot be read"):
                    await upstream.narinfo(HASH)
            ca_file.write_bytes(authority.ca_file.read_bytes())
            assert await upstream.narinfo(HASH) == TEXT


async def test_a_certificate_of_another_host_is_refused(authority: Authority) -> None:
    async with (
        UpstreamServer(authority.server) as server,
        ConnectProxy(routes={"other.example:443": server.port}) as proxy,
    ):
        settings = {"proxy": proxy.url, "ca_file": authority.ca_file}
        async with reach("https://other.example", **settings) as upstream:
            with pytest.raises(Unavailable, match="certificate"):
                await upstream.narinfo(HASH)
        assert server.log == []


async def test_a_server_without_tls_is_unknown(
    server: UpstreamServer, authority: Authority
) -> None:
    async with reach(f"https://127.0.0.1:{server.port}") as upstream:
        with pytest.raises(Unavailable, match="TLS"):
            await upstream.narinfo(HASH)


# What breaks before there is an answer


async def test_a_refused_connection_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with reach(f"http://127.0.0.1:{port}") as upstream:
        with pytest.raises(Unavailable, match=f"no connection to 127.0.0.1:{port}"):
            await upstream.narinfo(HASH)


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_that_ends_without_an_answer_is_unknown(
    server: UpstreamServer, end: str
) -> None:
    server.on(NARINFO, Reply(end=end))  # type: ignore[arg-type]
    async with reach(server.url) as upstream:
        with pytest.raises(Unavailable, match=f"cache: {server.url}{NARINFO}: "):
            await upstream.narinfo(HASH)


async def test_what_is_not_http_is_unknown() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        async with reach(f"http://127.0.0.1:{port}") as upstream:
            with pytest.raises(Unavailable, match="not HTTP"):
                await upstream.open_nar("n?signature=secret")


async def test_no_answer_in_time_is_unknown(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(before=asyncio.Event()))
    server.on("/moved", redirect(NARINFO))
    async with reach(server.url, timeout=0.05, max_connections=1) as upstream:
        with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
            await upstream.narinfo(HASH)
        with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
            await upstream.open_nar("moved")
        await server.abandoned()


async def test_a_narinfo_that_stalls_is_unknown(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(body=TEXT.encode(), end="stall", after=5))
    async with reach(server.url, stall_timeout=0.05) as upstream:
        with pytest.raises(Unavailable, match=r"not complete after 0\.05 s"):
            await upstream.narinfo(HASH)
        await server.abandoned()


async def test_an_absent_answer_is_absent_even_if_its_page_stalls(server: UpstreamServer) -> None:
    server.on(NARINFO, Reply(status=404, body=b"not found", end="stall", after=3))
    async with reach(server.url) as upstream:
        assert await upstream.narinfo(HASH) is None
        await server.abandoned()


async def test_waiting_for_a_free_connection_is_not_held_against_the_upstream(
    server: UpstreamServer,
) -> None:
    gate = asyncio.Event()
    server.on("/n", Reply(body=NAR, pause=gate, after=10))
    server.on("/late", Reply(body=NAR))
    async with reach(server.url, max_connections=1, timeout=0.5) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        waiting = asyncio.create_task(upstream.open_nar("late"))
        await asyncio.wait([waiting], timeout=0.6)
        assert not waiting.done()
        gate.set()
        assert await body.read_all() == NAR
        late = await waiting
        assert late is not None
        await late.aclose()


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that lets nobody in: its queue is full, and what arrives is dropped."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(address)
        yield address[1]


async def test_no_connection_in_time_is_unknown(black_hole: int) -> None:
    url = f"http://127.0.0.1:{black_hole}"
    async with reach(url, connect_timeout=0.05) as upstream:
        with pytest.raises(Unreachable, match="connect_timeout"):
            await upstream.narinfo(HASH)


# Cancellation


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_while_connecting(black_hole: int, server: UpstreamServer) -> None:
    server.on(NARINFO, redirect(f"http://127.0.0.1:{black_hole}/"), FOUND)
    async with reach(server.url, max_connections=1) as upstream:
        lookup = asyncio.create_task(upstream.narinfo(HASH))
        await server.requested(NARINFO)
        # The redirect is on its way; then it waits in vain for the connection.
        for _ in range(20):
            await asyncio.sleep(0)
        await cancel(lookup)
        assert await upstream.narinfo(HASH) == TEXT


@pytest.mark.parametrize("call", ["narinfo", "nar"])
async def test_cancelled_while_waiting_for_the_answer(server: UpstreamServer, call: str) -> None:
    path = NARINFO if call == "narinfo" else "/n"
    server.on(path, Reply(before=asyncio.Event()), FOUND)
    async with reach(server.url, max_connections=1) as upstream:
        asking: asyncio.Task[object] = (
            asyncio.create_task(upstream.narinfo(HASH))
            if call == "narinfo"
            else asyncio.create_task(upstream.open_nar("n"))
        )
        await server.requested(path)
        await cancel(asking)
        await server.abandoned()
        # Its permits came back.
        body = await upstream.open_nar("n")
        assert call == "narinfo" or body is not None
        if body is not None:
            await body.aclose()


async def test_cancelled_while_reading(server: UpstreamServer) -> None:
    server.on("/n", Reply(body=NAR, end="stall", after=1000), FOUND)
    async with reach(server.url, max_connections=1) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        async with body:
            assert await body.__anext__()
            reading = asyncio.create_task(body.read_all())
            await asyncio.sleep(0)
            await cancel(reading)
        await server.abandoned()
        assert await upstream.narinfo(HASH) is None


async def test_cancelled_while_waiting_for_its_turn(server: UpstreamServer) -> None:
    server.on("/n", Reply(body=NAR, end="stall", after=1000))
    async with reach(server.url, max_connections=2) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        waiting = asyncio.create_task(upstream.open_nar("n"))
        await asyncio.sleep(0)
        await cancel(waiting)
        await body.aclose()
        body = await upstream.open_nar("n")
        assert body is not None
        await body.aclose()
        await server.abandoned()


async def test_closing_the_upstream_breaks_its_downloads_off(server: UpstreamServer) -> None:
    server.on("/n", Reply(body=NAR, end="stall", after=1000))
    async with reach(server.url) as upstream:
        body = await upstream.open_nar("n")
        assert body is not None
        async with body:
            await upstream.aclose()
            await server.abandoned()
            with pytest.raises(Unavailable):
                await body.read_all()
        with pytest.raises(Unavailable, match="closed"):
            await upstream.narinfo(HASH)


# Secrets


async def test_no_error_gives_a_secret_away(
    server: UpstreamServer, black_hole: int, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = ("hunter2", "signature")
    signed = "n?sig=signature"
    server.on("/n", Reply(status=401), Reply(end="close"), Reply(end="close"), redirect(signed))
    hole = f"http://127.0.0.1:{black_hole}/{signed}"
    caplog.set_level("DEBUG", logger="tvixstore")
    async with reach(
        with_login(server.url, "user:hunter2"), connect_timeout=0.05, timeout=0.5
    ) as upstream:
        assert "hunter2" not in repr(upstream)
        for url in (signed, signed, signed, hole, f"ftp://u:hunter2@h/{signed}"):
            with pytest.raises((Unavailable, CorruptData)) as failed:
                await upstream.open_nar(url)
            for error in chain(failed.value):
                assert not any(secret in f"{error} {error!r}" for secret in secrets), repr(error)
    for record in caplog.records:
        assert not any(secret in str(record.__dict__) for secret in secrets)
