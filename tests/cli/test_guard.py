"""A daemon with tokens and certificates: its start, their renewal, and that nothing shows them."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest

from tests.rpc.google import google_client
from tests.support.certificates import Authority, make_authority
from tests.support.composed import ComposedDaemon, local_store, tier_over
from tests.support.daemon import PATIENCE, PROGRAM, Daemon, substituter
from tests.support.upstream_server import Reply, UpstreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.daemon import Section, Value

READER, PUSHER, OLD = "reader-s3cret", "pusher-s3cret", "old-s3cret"
TOKENS = f"{READER} read\n{PUSHER} read,write\n{OLD} read expires=2020-01-01T00:00:00Z\n"
INFO = "/nix-cache-info"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "localhost")


def guarded(folder: Path, **keys: Value) -> Daemon:
    (folder / "tokens").write_text(TOKENS)
    (folder / "tokens").chmod(0o644)
    return Daemon(folder, daemon={"tokens_file": "tokens", "anonymous_read": False, **keys})


def with_tls(authority: Authority, folder: Path) -> dict[str, Value]:
    (folder / "tls.pem").write_bytes(authority.chain.read_bytes())
    return {"tls_cert": "tls.pem", "tls_key": "tls.pem"}


def trusting(*authorities: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in authorities:
        context.load_verify_locations(authority.ca_file)
    return context


async def status(daemon: Daemon, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return (await daemon.get(INFO, **headers)).status


async def test_tokens_that_change_count_within_a_second(tmp_path: Path) -> None:
    async with guarded(tmp_path) as daemon:
        assert await status(daemon, READER) == 200
        assert [await status(daemon, token) for token in (None, OLD, "no")] == [401, 401, 401]
        (tmp_path / "tokens").write_text(f"new-one read\n{PUSHER} raed\n")
        event = await daemon.logged("access.not_reloaded")
        assert event["level"] == "error"
        assert "tokens: line 2: the second word is not a list of read" in event["reason"]
        assert [await status(daemon, READER), await status(daemon, "new-one")] == [200, 401]
        (tmp_path / "tokens").write_text("new-one read\n")
        await daemon.logged("access.reloaded", key="tokens_file")
        assert [await status(daemon, READER), await status(daemon, "new-one")] == [401, 200]


async def test_a_certificate_is_renewed_under_open_connections(
    tmp_path: Path, authority: Authority
) -> None:
    other = make_authority(tmp_path / "other")
    async with guarded(tmp_path, **with_tls(authority, tmp_path)) as daemon:
        daemon.tls = trusting(authority)
        async with daemon.session() as session:

            async def asked() -> int:
                async with session.get("/healthz") as answer:
                    await answer.read()
                return answer.status

            assert await asked() == 200
            # Half of a renewal: a key that is not this certificate's.
            chain = (tmp_path / "tls.pem").read_bytes()
            (tmp_path / "tls.pem").write_bytes(chain[: chain.index(b"-----BEGIN CERT")])
            await daemon.logged("access.not_reloaded", key="tls_cert")
            assert (await daemon.get("/healthz")).status == 200
            (tmp_path / "tls.pem").write_bytes(other.chain.read_bytes())
            await daemon.logged("access.reloaded", key="tls_cert")
            assert await asked() == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await daemon.get("/healthz")
        # Whoever does not speak TLS is hung up on, which nobody needs to read about.
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"alive" not in await reader.read()
        writer.close()
        await writer.wait_closed()
        daemon.tls = trusting(other)
        assert (await daemon.get("/healthz")).status == 200


async def test_a_certificate_that_ends_soon_and_files_that_all_can_read_are_told_of(
    tmp_path: Path, authority: Authority
) -> None:
    authority.issue(tmp_path / "ends.pem", days=3).chmod(0o644)
    keys: dict[str, Value] = {"tls_cert": "ends.pem", "tls_key": "ends.pem"}
    async with guarded(tmp_path, **keys) as daemon:
        assert (await daemon.logged("tls.expires"))["level"] == "warning"
        assert {event["key"] for event in daemon.events("access.exposed")} == {
            "tokens_file",
            "tls_key",
        }


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"tokens_file": "absent"}, r"tokens_file: \S+/absent cannot be read: No such file"),
        ({"tokens_file": "broken"}, r"tokens_file: \S+/broken: line 1: the second word is not"),
        ({"tokens_file": "latin"}, r"tokens_file: \S+/latin: line 2: is not UTF-8"),
        ({"tls_cert": "broken", "tls_key": "broken"}, r"tls_cert: \S+/broken has no certificate"),
    ],
)
def test_it_does_not_start_with_what_it_cannot_use(
    tmp_path: Path, keys: dict[str, Value], reason: str
) -> None:
    (tmp_path / "broken").write_text("tok3n-of-a-test raed\n")
    (tmp_path / "latin").write_bytes(b"tok3n-of-a-test read\nt\xe4st read\n")
    daemon = Daemon(tmp_path, daemon=keys)
    command = [sys.executable, "-c", PROGRAM, "daemon", "--compose", str(daemon.compose)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert re.search(reason, done.stderr), done.stderr
    assert "tok3n" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.may_leave("threads", "files")
async def test_two_daemons_meet_over_tls_with_a_token(tmp_path: Path, authority: Authority) -> None:
    far_folder, near_folder = tmp_path / "far", tmp_path / "near"
    far_folder.mkdir()
    near_folder.mkdir()
    (far_folder / "tokens").write_text(TOKENS)
    (near_folder / "token").write_text(f"{READER}\n")
    settings = {
        "tokens_file": "tokens",
        "anonymous_read": False,
        "client_ca": str(authority.ca_file),
        **with_tls(authority, far_folder),
    }
    own = authority.issue(tmp_path / "own.pem")
    far = ComposedDaemon(far_folder, local_store(), settings)
    async with far:
        credentials = grpc.ssl_channel_credentials(authority.ca_file.read_bytes())
        async with google_client(far.grpc.removeprefix("https://"), credentials=credentials) as one:
            # It has no certificate.
            answer = await one.call("grpc.health.v1.Health/Check", b"", timeout=20)
            assert answer.status is grpc.StatusCode.UNAVAILABLE
        url = [str(event["grpc"]) for event in far.events("listening") if "grpc" in event][0]
        assert url.startswith("grpc+https://127.0.0.1:")
        keys = {
            "token_file": "token",
            "ca_file": str(authority.ca_file),
            "client_cert": str(own),
            "client_key": str(own),
        }
        near = ComposedDaemon(near_folder, tier_over(url, **keys))
        async with near:
            narinfo = f"/{'0' * 32}.narinfo"
            assert (await near.get(narinfo)).status == 404
            (near_folder / "token").write_text("not-the-s3cret\n")
            # Nobody knows any more; and never a 404.
            async with asyncio.timeout(PATIENCE):
                while (await near.get(narinfo)).status == 404:
                    pass
            assert (await near.get(narinfo)).status == 503
            await near.logged("peer.credentials_refused", level="error")


def composed(command: str, file: Path, environment: dict[str, str]) -> list[str]:
    """What `tvix-store compose` prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "compose", command, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=PATIENCE,
    )
    return [done.stdout, done.stderr]


@pytest.mark.may_leave("threads", "files")
async def test_no_secret_is_in_any_output(tmp_path: Path, authority: Authority) -> None:
    """Whatever was configured or sent, at the most talkative, while all kinds of things fail."""
    secrets = [READER, PUSHER, OLD, "netrc-s3cret", "url-s3cret", "bearer-s3cret", "wrong-s3cret"]
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password netrc-s3cret\n")
    (tmp_path / "bearer").write_text("bearer-s3cret\n")
    (tmp_path / "tokens").write_text(TOKENS)
    output = []
    async with UpstreamServer() as upstream:
        upstream.otherwise(lambda seen: Reply(status=401))
        with_login = upstream.url.replace("://", "://u:${URL_SECRET}@")
        members: list[Section] = [
            substituter(upstream.url, None, name="one", netrc_file="netrc"),
            substituter(upstream.url, None, name="two", token_file="bearer"),
            substituter(with_login, None, name="three"),
            {"url": "grpc+http://127.0.0.1:1", "unsigned": True, "token_file": "bearer"},
        ]
        settings: dict[str, Value] = {
            "grpc": "127.0.0.1:0",
            "tokens_file": "tokens",
            "anonymous_read": False,
            "log_level": "debug",
            "access_log": True,
            **with_tls(authority, tmp_path),
        }
        environment = {"URL_SECRET": "url-s3cret"}
        daemon = Daemon(tmp_path, members, daemon=settings, environment=environment)
        async with daemon:
            daemon.tls = trusting(authority)
            for token in (READER, PUSHER, OLD, "wrong-s3cret"):
                for target in (INFO, f"/{'0' * 32}.narinfo", "/metrics", "/readyz", "/x"):
                    for method in ("GET", "PUT"):
                        headers = {"Authorization": f"Bearer {token}"}
                        answer = await daemon.get(target, method, **headers)
                        output += [answer.body.decode(), str(answer.headers)]
            target = [str(e["grpc"]) for e in daemon.events("listening") if "grpc" in e][0]
            credentials = grpc.ssl_channel_credentials(authority.ca_file.read_bytes())
            async with google_client(
                target.removeprefix("grpc+https://"), credentials=credentials
            ) as client:
                for token in secrets:
                    client.metadata = [("authorization", f"Bearer {token}")]
                    found = await client.call("tvix.store.v1.PathInfoService/Get", b"\xff")
                    output.append(found.details)
            assert daemon.events("upstream.credentials_refused")
            # A slip of an editor.
            (tmp_path / "tokens").write_text(f"read {PUSHER}\n{READER}\n{OLD} read {OLD}\n")
            await daemon.logged("access.not_reloaded")
            (tmp_path / "tls.pem").write_bytes(authority.ca_file.read_bytes())
            await daemon.logged("access.not_reloaded", key="tls_cert")
        for command in ("show", "check"):
            output += await asyncio.to_thread(composed, command, daemon.compose, environment)
    output.append(daemon.text())
    everything = "\n".join(output)
    assert "401" in everything and "credentials" in everything, "nothing was provoked"
    for secret in secrets:
        assert secret not in everything, secret
    assert "PRIVATE KEY" not in everything
