"""The golden Directories over the wire: valid ones after their children, invalid ones never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from tests.castore.test_codec import INVALID, VALID
from tests.http.support import Store
from tests.rpc.google import GoogleClient, google_client, message
from tests.rpc.support import serving
from tvixstore.castore import Directory, decode_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.may_leave("threads", "files")

# The sizes that it states are of Directories that nobody has.
ON_THE_WIRE = {name: row for name, row in VALID.items() if name != "big-sizes"}
KNOWN = {
    directory.digest: directory
    for directory in (decode_directory(bytes.fromhex(row["wire_hex"])) for row in VALID.values())
}


@pytest.fixture
async def client() -> AsyncIterator[GoogleClient]:
    async with serving(Store()) as served, google_client(served.target) as client:
        yield client


def closure_of(directory: Directory) -> list[Directory]:
    """What is below it and itself, children first."""
    below = [each for child in directory.children for each in closure_of(KNOWN[child.digest])]
    return [*below, directory]


@pytest.mark.parametrize("package", ["tvix", "snix"])
@pytest.mark.parametrize("row", ON_THE_WIRE.values(), ids=ON_THE_WIRE)
async def test_a_valid_directory_is_taken_after_its_children(
    client: GoogleClient, package: str, row: dict[str, Any]
) -> None:
    service = f"{package}.castore.v1.DirectoryService"
    closure = closure_of(decode_directory(bytes.fromhex(row["wire_hex"])))
    answer = await client.call(f"{service}/Put", *[each.wire for each in closure])
    assert answer.reply.root_digest.hex() == row["digest_hex"]
    asked = message(f"{package}.castore.v1.GetDirectoryRequest", digest=answer.reply.root_digest)
    again = await client.call(f"{service}/Get", asked)
    assert again.wire.hex() == row["wire_hex"]


@pytest.mark.parametrize("package", ["tvix", "snix"])
@pytest.mark.parametrize("wire_hex", INVALID.values(), ids=INVALID)
async def test_an_invalid_directory_is_invalid(
    client: GoogleClient, package: str, wire_hex: str
) -> None:
    method = f"{package}.castore.v1.DirectoryService/Put"
    answer = await client.call(method, bytes.fromhex(wire_hex))
    assert answer.status is StatusCode.INVALID_ARGUMENT
    assert answer.details.startswith("message 0: ")
