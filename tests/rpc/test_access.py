"""Every RPC, with every kind of credentials; certificates on both ends; and too many of all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import StatusCode
from grpclib.const import Status

from tests.http.support import Store
from tests.rpc.google import GoogleClient, google_client
from tests.rpc.raw import framed, raw_client
from tests.rpc.support import Served, front_over, serving
from tests.rpc.test_server import EMPTY, GET, STAT, WANTED, ScopedPaths
from tests.support.certificates import Authority, make_authority
from tests.support.credentials import CREDENTIALS, TOKENS
from tvixstore.access import Access, Right, read_certificate
from tvixstore.rpc.server import Limits, services
from tvixstore.rpc.server.dispatch import Dispatcher, Row

if TYPE_CHECKING:
    from pathlib import Path

# grpcio keeps threads and files for the process.
pytestmark = pytest.mark.may_leave("threads", "files")

REFUSED = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED}
FREE = {"health.v1.Health"}
# What is found lacking nothing is held for who asks, and he has to be one who puts.
CHANGING = ("Put", "Lacking")


async def rows() -> dict[str, Row]:
    """All that is served, by the name that it goes by on the wire."""
    found: dict[str, Row] = {}

    class Noted(Dispatcher):
        async def serve(self, row: Row, stream: Any) -> None:
            raise AssertionError("nobody calls")

    async with front_over(Store()) as front:
        for service in services(front, Noted(front)):
            for path, handler in service.__mapping__().items():
                found[path.removeprefix("/")] = handler.func.args[0]
    return found


async def test_every_call_says_what_it_takes() -> None:
    for path, row in (await rows()).items():
        service, name = path.split("/")
        assert (row.right is None) == any(service.endswith(free) for free in FREE), path
        if service.endswith(".Admin"):
            assert row.right == "admin", path
        elif name in CHANGING:
            assert row.right == "write", path
        elif row.right is not None:
            assert row.right == "read", path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "localhost")


@pytest.fixture
def tls(authority: Authority) -> Any:
    return read_certificate(authority.chain, authority.chain)


def trusting(authority: Authority, own: Path | None = None) -> grpc.ChannelCredentials:
    pem = None if own is None else own.read_bytes()
    return grpc.ssl_channel_credentials(authority.ca_file.read_bytes(), pem, pem)


async def outcome(client: GoogleClient, path: str, authorization: str | None) -> StatusCode:
    client.metadata = [] if authorization is None else [("authorization", authorization)]
    # No request is whole, so whoever gets in is told that it is invalid, or nothing at all.
    return (await client.call(path, b"\xff", timeout=10)).status


@pytest.mark.parametrize("anonymous_read", [True, False])
async def test_every_call_asks_for_its_right(
    anonymous_read: bool, authority: Authority, tls: Any
) -> None:
    anonymous: frozenset[Right] = frozenset({"read"} if anonymous_read else ())
    table = await rows()
    async with (
        serving(access=Access(anonymous, TOKENS), tls=tls.grpc) as served,
        google_client(served.target, credentials=trusting(authority)) as client,
    ):
        for path, row in table.items():
            for name, (authorization, rights) in CREDENTIALS.items():
                status = await outcome(client, path, authorization)
                where = f"{path} with {name} credentials: {status}"
                unknown = name in ("wrong", "expired")
                may = rights | (anonymous if not unknown else set())
                if row.right is None or row.right in may:
                    assert status not in REFUSED, where
                elif rights:
                    assert status is StatusCode.PERMISSION_DENIED, where
                else:
                    assert status is StatusCode.UNAUTHENTICATED, where


async def test_a_refusal_says_why_and_is_counted() -> None:
    async with (
        serving(access=Access(frozenset(), TOKENS)) as served,
        google_client(served.target) as client,
    ):
        answer = await client.call("tvix.castore.v1.BlobService/Stat", b"")
        assert answer.details.startswith("reading takes credentials here: send a token as")
        assert served.counted("castore.v1.BlobService/Stat", "UNAUTHENTICATED", "refused") == 1


async def test_a_put_is_refused_before_its_first_message() -> None:
    async with (
        serving(access=Access(frozenset({"read"}), TOKENS)) as served,
        raw_client(served.address) as client,
    ):
        number = client.begin("/tvix.castore.v1.BlobService/Put")
        assert (await client.ended(number)).status is Status.UNAUTHENTICATED


async def answered(served: Served, credentials: grpc.ChannelCredentials) -> bool:
    async with google_client(served.target, credentials=credentials) as client:
        answer = await client.call("grpc.health.v1.Health/Check", b"", timeout=10)
    assert answer.status in (StatusCode.OK, StatusCode.UNAVAILABLE), answer
    return answer.status is StatusCode.OK


async def test_only_clients_of_the_authority_get_in(authority: Authority, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other")
    ours, theirs = authority.issue(tmp_path / "ours.pem"), other.issue(tmp_path / "theirs.pem")
    tls = read_certificate(authority.chain, authority.chain, authority.ca_file)
    async with serving(tls=tls.grpc) as served:
        assert await answered(served, trusting(authority, ours))
        assert not await answered(served, trusting(authority))
        assert not await answered(served, trusting(authority, theirs))
        # From now on it is the others' turn, and no session of before is taken up again.
        renewed = read_certificate(authority.chain, authority.chain, other.ca_file)
        await served.server.renew(renewed.grpc)
        assert await answered(served, trusting(authority, theirs))
        assert not await answered(served, trusting(authority, ours))


async def test_a_connection_lives_on_when_the_certificate_is_renewed(
    authority: Authority, tmp_path: Path
) -> None:
    other = make_authority(tmp_path / "other")
    first = read_certificate(authority.chain, authority.chain)
    second = read_certificate(other.chain, other.chain)
    async with (
        serving(tls=first.grpc) as served,
        google_client(served.target, credentials=trusting(authority)) as client,
    ):
        check = "grpc.health.v1.Health/Check"
        assert (await client.call(check, b"")).status is StatusCode.OK
        for _ in range(3):
            await served.server.renew(second.grpc)
            assert (await client.call(check, b"")).status is StatusCode.OK
        assert not await answered(served, trusting(authority))
        assert await answered(served, trusting(other))


async def test_calls_beyond_the_limit_are_told_to_come_again() -> None:
    paths = ScopedPaths()
    async with (
        serving(path_infos=paths, limits=Limits(calls=1)) as served,
        raw_client(served.address) as client,
        raw_client(served.address) as other,
    ):
        number = client.begin(GET)
        client.send(number, framed(WANTED), end=True)
        await paths.asked.wait()
        for _ in range(3):
            assert (await other.call(STAT, EMPTY)).status is Status.RESOURCE_EXHAUSTED
        # Whoever looks after it is answered all the same.
        assert (await other.call("/grpc.health.v1.Health/Check", b"")).status is Status.OK
        client.h2.reset_stream(number)
        client.flush()
        await paths.cleaned.wait()
        await client.heard()
        assert (await other.call(STAT, EMPTY)).status is Status.OK
    assert served.counted("castore.v1.BlobService/Stat", "RESOURCE_EXHAUSTED", "invalid") == 3


async def test_connections_beyond_the_limit_are_sent_home() -> None:
    async with serving(limits=Limits(connections=1)) as served:
        async with raw_client(served.address) as client:
            reader, writer = await asyncio.open_connection(*served.address.split(":"))
            said = await reader.read()
            # GOAWAY, because it is too much.
            assert said.endswith(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b")
            writer.close()
            await writer.wait_closed()
            assert (await client.call(STAT, EMPTY)).status is Status.OK
