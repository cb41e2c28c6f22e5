"""What goes wrong behind the front door: 503 and never 404, 500 without details."""

from __future__ import annotations

import pytest

from tests.http.support import (
    ABSENT,
    FailingPaths,
    client_of,
    counted,
    front_of,
    link_of,
)
from tvixstore.castore import Digest, DirectoryNode
from tvixstore.errors import (
    ConfigError,
    CorruptData,
    Incomplete,
    InvalidData,
    ReadOnly,
    Skipped,
    StorageFull,
    StoreError,
    Unavailable,
    Unsupported,
)

ERRORS = [
    StoreError("who knows"),
    InvalidData("a peer did not like it"),
    CorruptData("mirror-1: narinfo names another path"),
    Unavailable("mirror-1: timed out; mirror-2: 500"),
    Incomplete("blob is missing", bytes(32)),
    StorageFull("1 GiB is to stay free"),
    Skipped("community is down", ["community"], answered=False),
    ReadOnly("read only"),
    Unsupported("cannot"),
    ConfigError("bad"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("form", ["narinfo", "ls", "nar", "node"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_failing_service_is_503_and_never_404(
    error: StoreError, form: str, method: str
) -> None:
    target = {
        "narinfo": f"/{ABSENT}.narinfo",
        "ls": f"/{ABSENT}.ls",
        "nar": f"/nar/{ABSENT}-{'0' * 52}.nar",
        # Of a Directory that is not here.
        "node": link_of(DirectoryNode(Digest(bytes(32)), 1), 999, ABSENT),
    }[form]
    async with client_of(front_of(FailingPaths(error))) as client:
        reply = await client.request(method, target)
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["cache-control"] == "no-store"
    if method == "GET":
        assert str(error) in reply.text


async def test_a_reason_never_holds_credentials() -> None:
    error = Unavailable("https://user:secret@mirror.example/x?token=secret: 500")
    async with client_of(front_of(FailingPaths(error))) as client:
        reply = await client.get(f"/{ABSENT}.narinfo")
    assert "mirror.example" in reply.text
    assert "secret" not in reply.text


@pytest.mark.parametrize(("wanted", "said"), [(7.2, "8"), (0.0, "1"), (86400.0, "60")])
async def test_retry_after_is_what_the_upstream_said_within_reason(
    wanted: float, said: str
) -> None:
    error = Unavailable("busy", retry_after=wanted)
    async with client_of(front_of(FailingPaths(error))) as client:
        reply = await client.get(f"/{ABSENT}.narinfo")
    assert reply.headers["retry-after"] == said


async def test_an_unexpected_exception_is_500_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    front = front_of(FailingPaths(KeyError("inner detail")))
    async with client_of(front) as client:
        reply = await client.get(f"/{ABSENT}.narinfo")
        after = await client.get("/nix-cache-info")
    assert (reply.status, reply.text) == (500, "internal error\n")
    assert after.status == 200
    assert counted(front, "requests_total", route="narinfo", status="500", answer="error") == 1
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_skipped_optional_members_make_a_404_that_nobody_keeps() -> None:
    error = Skipped("community is down", ["community", "späť\n"], answered=True)
    async with client_of(front_of(FailingPaths(error))) as client:
        reply = await client.get(f"/{ABSENT}.narinfo")
        nar = await client.get(f"/nar/{ABSENT}-{'0' * 52}.nar")
        listing = await client.get(f"/{ABSENT}.ls")
    assert reply.status == 404
    assert reply.headers["x-tvix-skipped"] == "community, sp???"
    assert reply.headers["cache-control"] == "no-store"
    assert (nar.status, listing.status) == (503, 503)
