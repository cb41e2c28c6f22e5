"""How upstreams and clients are reached: private CAs, credentials, proxies, redirects, prefixes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, UnixConnector, web

from tests.support.caches import files_of, make_path
from tests.support.certificates import Authority, make_authority
from tests.support.connect_proxy import ConnectProxy
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, Seen, UpstreamServer, redirect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.caches import MadePath
    from tests.support.nix_client import NixClient


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "cache.example")


@pytest.fixture
def path(upstreams: Upstreams) -> MadePath:
    return make_path("wanted", upstreams.workshop.secret_key, size=100_000)


def serve(server: UpstreamServer, path: MadePath, *, login: str | None = None) -> None:
    """Has `server` serve `path`, to those who log in if that is demanded."""
    files = files_of([path])
    token = None if login is None else "Basic " + base64.b64encode(login.encode()).decode()

    def script(seen: Seen) -> Reply:
        if token is not None and seen.headers.get("Authorization") != token:
            return Reply(status=401)
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    server.otherwise(script)


async def test_an_upstream_behind_a_private_authority_is_trusted_by_its_ca_file(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, authority: Authority, client: NixClient
) -> None:
    async with UpstreamServer(authority.server) as upstream:
        serve(upstream, path)
        section = substituter(upstream.url, upstreams.key, ca_file=str(authority.ca_file))
        async with Daemon(tmp_path / "tvix", [section]) as daemon:
            await client.copy(daemon.url, path.store_path)
        assert upstream.seen(path.nar_target)
    await client.verify()


async def test_an_upstream_of_an_unknown_authority_is_not_believed(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, authority: Authority
) -> None:
    async with UpstreamServer(authority.server) as upstream:
        serve(upstream, path)
        async with Daemon(tmp_path, [substituter(upstream.url, upstreams.key)]) as daemon:
            answer = await daemon.get(path.narinfo_target)
            assert answer.status == 503
            assert b"certificate" in answer.body
        assert not upstream.log


async def test_a_netrc_opens_an_upstream_and_is_told_to_nobody_else(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, client: NixClient
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login reader password s3cret\n")
    async with UpstreamServer() as upstream:
        serve(upstream, path, login="reader:s3cret")
        section = substituter(upstream.url, upstreams.key, netrc_file=str(netrc))
        async with Daemon(tmp_path / "tvix", [section]) as daemon:
            await client.copy(daemon.url, path.store_path)
            assert "s3cret" not in daemon.text() + (await daemon.get("/readyz")).body.decode()
        assert upstream.seen(path.nar_target)
    await client.verify()


async def test_a_login_in_the_url_is_used_and_kept_out_of_the_log(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, client: NixClient
) -> None:
    async with UpstreamServer() as upstream:
        serve(upstream, path, login="reader:s3cret")
        url = upstream.url.replace("://", "://reader:${CACHE_PASSWORD}@")
        daemon = Daemon(
            tmp_path / "tvix",
            [substituter(url, upstreams.key)],
            environment={"CACHE_PASSWORD": "s3cret"},
        )
        async with daemon:
            await client.copy(daemon.url, path.store_path)
            assert "s3cret" not in daemon.text() + (await daemon.get("/readyz")).body.decode()
        assert upstream.seen(path.nar_target)


async def test_a_refused_login_is_unknown_and_said_loudly(
    tmp_path: Path, upstreams: Upstreams, path: MadePath
) -> None:
    async with UpstreamServer() as upstream:
        serve(upstream, path, login="reader:s3cret")
        async with Daemon(tmp_path, [substituter(upstream.url, upstreams.key)]) as daemon:
            assert (await daemon.get(path.narinfo_target)).status == 503
            assert any("401" in str(e) for e in daemon.log if e["level"] in ("warning", "error"))
        assert upstream.seen(path.narinfo_target)


async def test_an_https_upstream_is_reached_through_a_connect_proxy(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, authority: Authority, client: NixClient
) -> None:
    async with UpstreamServer(authority.server) as upstream, ConnectProxy() as proxy:
        serve(upstream, path)
        # Nobody can resolve the name but the proxy.
        proxy.routes["cache.example:443"] = upstream.port
        section = substituter(
            "https://cache.example", upstreams.key, ca_file=str(authority.ca_file), proxy=proxy.url
        )
        async with Daemon(tmp_path / "tvix", [section]) as daemon:
            await client.copy(daemon.url, path.store_path)
        assert upstream.seen(path.nar_target)
        assert proxy.log
        assert all(line.startswith("CONNECT cache.example:443 ") for line in proxy.log)
    await client.verify()


async def test_the_environment_names_a_proxy_as_well(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, authority: Authority
) -> None:
    async with UpstreamServer(authority.server) as upstream, ConnectProxy() as proxy:
        serve(upstream, path)
        proxy.routes["cache.example:443"] = upstream.port
        daemon = Daemon(
            tmp_path,
            [substituter("https://cache.example", upstreams.key)],
            environment={"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(authority.ca_file)},
        )
        async with daemon:
            assert (await daemon.get(await daemon.nar_target(path.digits))).body == path.nar
        assert proxy.log


async def test_a_redirect_to_a_signed_url_gets_no_authorization(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, client: NixClient
) -> None:
    async with UpstreamServer() as upstream, UpstreamServer() as bucket:
        serve(upstream, path, login="reader:s3cret")
        signed = f"{bucket.url}/bucket/object?X-Signature=abc%2Fdef&Expires=300"
        upstream.on(path.nar_target, redirect(signed, 307))

        def object_store(seen: Seen) -> Reply:
            # Two ways to prove oneself are one too many for it.
            if "Authorization" in seen.headers:
                return Reply(status=400)
            return Reply(body=path.nar)

        bucket.on("/bucket/object", object_store)
        url = upstream.url.replace("://", "://reader:s3cret@")
        async with Daemon(tmp_path / "tvix", [substituter(url, upstreams.key)]) as daemon:
            await client.copy(daemon.url, path.store_path)
            assert "abc" not in daemon.text()
        (seen,) = bucket.log
        assert seen.target.endswith("?X-Signature=abc%2Fdef&Expires=300")
        assert "Authorization" in upstream.seen(path.nar_target)[0].headers
    await client.verify()


async def test_a_folder_is_an_upstream(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient
) -> None:
    section = substituter(f"file://{upstreams.of('zstd', app)}", upstreams.key)
    async with Daemon(tmp_path / "tvix", [section]) as daemon:
        await client.copy(daemon.url, app)
    await client.verify()


async def test_a_prefix_stripping_reverse_proxy_may_stand_in_front(
    tmp_path: Path,
    upstreams: Upstreams,
    path: MadePath,
    client: NixClient,
    second_client: NixClient,
) -> None:
    asked: list[str] = []
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        async with (
            Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)]) as daemon,
            daemon.session() as session,
        ):

            async def strip(request: web.BaseRequest) -> web.Response:
                asked.append(request.raw_path)
                if not request.raw_path.startswith("/nix/"):
                    return web.Response(status=404)
                async with session.get(request.raw_path.removeprefix("/nix")) as answer:
                    kept = {
                        name: value
                        for name, value in answer.headers.items()
                        if name in ("Content-Type", "ETag", "Accept-Ranges")
                    }
                    body = await answer.read()
                    return web.Response(status=answer.status, headers=kept, body=body)

            runner = web.ServerRunner(web.Server(strip))
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/nix"
                # Cold, the NAR is named by its hash, and warm by its content.
                await client.copy(url, path.store_path)
                await daemon.settled()
                await second_client.copy(url, path.store_path)
            finally:
                await runner.cleanup()
    assert any(target.startswith("/nix/nar/tvix-castore/") for target in asked)
    for one in (client, second_client):
        await one.verify()


async def test_every_interface_takes_both_families(
    tmp_path: Path, upstreams: Upstreams, path: MadePath, client: NixClient
) -> None:
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        section = substituter(upstream.url, upstreams.key)
        async with Daemon(tmp_path / "tvix", [section], daemon={"http": "[::]:0"}) as daemon:
            port = daemon.port
            async with ClientSession() as session:
                for host in ("127.0.0.1", "[::1]"):
                    async with session.get(f"http://{host}:{port}/healthz") as answer:
                        assert answer.status == 200, host
            await client.copy(f"http://127.0.0.1:{port}", path.store_path)
    await client.verify()


async def test_a_unix_socket_serves_too(
    tmp_path: Path, upstreams: Upstreams, path: MadePath
) -> None:
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        section = substituter(upstream.url, upstreams.key)
        daemon = Daemon(tmp_path, [section], daemon={"http": "unix:./socket"})
        async with (
            daemon,
            ClientSession(connector=UnixConnector(str(tmp_path / "socket"))) as session,
        ):
            async with session.get(f"http://tvix{path.narinfo_target}") as answer:
                assert (answer.status, daemon.url) == (200, f"http+unix:{tmp_path}/socket")
