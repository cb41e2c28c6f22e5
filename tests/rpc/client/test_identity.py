"""What our client shows a peer, and whom it takes for one."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.rpc.support import Served, serving
from tests.support.certificates import Authority, make_authority
from tvixstore.access import Access, parse_tokens, read_certificate
from tvixstore.castore import Digest
from tvixstore.errors import ReadOnly, Unavailable
from tvixstore.pools import Pools
from tvixstore.rpc.client import GrpcBlobService, Peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ACCESS = Access(frozenset(), parse_tokens("s3cret read,write\nreader read\n", "tokens"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "localhost")


@asynccontextmanager
async def blobs_of(served: Served, scheme: str, **files: Path) -> AsyncIterator[GrpcBlobService]:
    pools = Pools(files=1, cpu=1, dns=1)
    settings: dict[str, Any] = {"timeout": 10.0, "pools": pools, **files}
    peer = Peer.at(f"{scheme}://{served.address}", **settings)
    try:
        yield GrpcBlobService(peer)
    finally:
        await peer.aclose()
        pools.close()


def tls_of(authority: Authority, client_ca: Path | None = None) -> Any:
    return read_certificate(authority.chain, authority.chain, client_ca).grpc


async def test_a_token_goes_with_every_call(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    async with (
        serving(access=ACCESS) as served,
        blobs_of(served, "grpc+http", token_file=tmp_path / "token") as blobs,
    ):
        data = bytes(3 << 20)
        digest = await blobs.put(data)
        assert await blobs.read(digest) == data
        assert await blobs.has(Digest.of(b"nothing")) is False


async def test_a_token_is_read_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tvixstore.rpc.client.identity._LOOK_EVERY", 0.0)
    token = tmp_path / "token"
    token.write_text("an-old-one\n")
    async with (
        serving(access=ACCESS) as served,
        blobs_of(served, "grpc+http", token_file=token) as blobs,
    ):
        with caplog.at_level(logging.INFO, "tvixstore.rpc"):
            for _ in range(2):
                # Not known to be absent: nobody said so.
                with pytest.raises(Unavailable, match="credentials are not known here"):
                    await blobs.has(Digest.of(b"x"))
            token.write_text("reader")
            assert await blobs.has(Digest.of(b"x")) is False
            with pytest.raises(ReadOnly, match="lacks the right `write`"):
                await blobs.put(b"x")
            token.unlink()
            with pytest.raises(Unavailable, match=f"credentials in {token} cannot be read"):
                await blobs.has(Digest.of(b"x"))
    events = [record.getMessage() for record in caplog.records]
    assert [event for event in events if event.startswith("peer.")] == [
        "peer.credentials_refused",
        "peer.credentials_accepted",
    ]
    assert "an-old-one" not in caplog.text + str([record.__dict__ for record in caplog.records])


async def test_a_peer_of_our_own_authority_is_trusted_by_its_ca_file(authority: Authority) -> None:
    async with (
        serving(tls=tls_of(authority)) as served,
        blobs_of(served, "grpc+https", ca_file=authority.ca_file) as blobs,
    ):
        assert await blobs.read(await blobs.put(b"x")) == b"x"


async def test_a_peer_is_trusted_by_its_name(authority: Authority) -> None:
    async with serving(address="localhost:0", tls=tls_of(authority)) as served:
        served.server.addresses[:] = [f"localhost:{served.address.rpartition(':')[2]}"]
        async with blobs_of(served, "grpc+https", ca_file=authority.ca_file) as blobs:
            assert await blobs.read(await blobs.put(b"x")) == b"x"


async def test_the_environment_names_authorities_as_well(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    async with (
        serving(tls=tls_of(authority)) as served,
        blobs_of(served, "grpc+https") as blobs,
    ):
        assert await blobs.read(await blobs.put(b"x")) == b"x"


async def test_a_peer_of_an_unknown_authority_is_not_believed(
    authority: Authority, tmp_path: Path
) -> None:
    other = make_authority(tmp_path / "other")
    async with serving(tls=tls_of(authority)) as served:
        async with blobs_of(served, "grpc+https", ca_file=other.ca_file) as blobs:
            with pytest.raises(Unavailable, match="not to be trusted.*see ca_file"):
                await blobs.has(Digest.of(b"x"))
        async with blobs_of(served, "grpc+https", ca_file=tmp_path / "absent") as blobs:
            with pytest.raises(Unavailable, match="absent cannot be read: No such file"):
                await blobs.has(Digest.of(b"x"))


async def test_a_peer_without_tls_is_unknown_and_so_is_one_that_wants_it(
    authority: Authority,
) -> None:
    async with serving() as plain, blobs_of(plain, "grpc+https") as blobs:
        with pytest.raises(Unavailable):
            await blobs.has(Digest.of(b"x"))
    async with serving(tls=tls_of(authority)) as secure, blobs_of(secure, "grpc+http") as blobs:
        with pytest.raises(Unavailable):
            await blobs.has(Digest.of(b"x"))


async def test_a_peer_that_wants_a_certificate_gets_ours(
    authority: Authority, tmp_path: Path
) -> None:
    own = authority.issue(tmp_path / "own.pem")
    files = {"ca_file": authority.ca_file, "client_cert": own, "client_key": own}
    async with serving(tls=tls_of(authority, authority.ca_file)) as served:
        async with blobs_of(served, "grpc+https", **files) as blobs:
            assert await blobs.read(await blobs.put(b"x")) == b"x"
        async with blobs_of(served, "grpc+https", ca_file=authority.ca_file) as blobs:
            with pytest.raises(Unavailable):
                await blobs.has(Digest.of(b"x"))
        files["client_key"] = tmp_path / "absent"
        async with blobs_of(served, "grpc+https", **files) as blobs:
            with pytest.raises(Unavailable, match="and its key cannot be used"):
                await blobs.has(Digest.of(b"x"))
