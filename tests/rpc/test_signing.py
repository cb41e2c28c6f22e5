"""Signatures at this front door: what goes out has ours, what comes in has one that is required."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode
from grpclib.const import Status

from tests.http.support import Store
from tests.pathinfo.samples import KEYS, STRANGER, TRUSTED, signed
from tests.rpc.google import google_client, message
from tests.rpc.raw import raw_client
from tests.rpc.support import Served, serving
from tvixstore.nix import KeyRing
from tvixstore.pathinfo import (
    CountersigningPathInfoService,
    SignatureRequiredPathInfoService,
    Signer,
)
from tvixstore.pathinfo.codec import encode_path_info
from tvixstore.rpc import methods
from tvixstore.rpc.messages import Describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# grpcio keeps threads and files for the process.
pytestmark = pytest.mark.may_leave("threads", "files")

SERVICE = "tvix.store.v1.PathInfoService"


@asynccontextmanager
async def requiring_and_signing() -> AsyncIterator[Served]:
    """Takes what `STRANGER` signed, and signs as `TRUSTED`."""
    store = await Store.filled()
    path_infos = SignatureRequiredPathInfoService(
        CountersigningPathInfoService(store.path_infos, Signer(TRUSTED), KEYS),
        KeyRing([STRANGER.public_key]),
    )
    async with serving(store, path_infos=path_infos) as served:
        yield served


async def test_what_no_required_key_signed_is_refused_with_the_reason() -> None:
    async with requiring_and_signing() as served, google_client(served.target) as client:
        info = served.store.path.info
        for refused in (info, signed(info, TRUSTED)):
            answer = await client.call(f"{SERVICE}/Put", encode_path_info(refused))
            assert answer.status is StatusCode.PERMISSION_DENIED
            assert "by one of stranger-1 (require_signature)" in answer.details
        taken = await client.call(f"{SERVICE}/Put", encode_path_info(signed(info, STRANGER)))
        assert taken.status is StatusCode.OK
        names = [each.name for each in taken.reply.narinfo.signatures]
        assert names == ["stranger-1", "trusted-1"]


async def test_what_is_read_is_signed_whichever_way_it_is_asked_for() -> None:
    async with requiring_and_signing() as served:
        info = served.store.path.info
        expected = encode_path_info(signed(info, TRUSTED))
        async with google_client(served.target) as client:
            wanted = message(
                "tvix.store.v1.GetPathInfoRequest", by_output_hash=info.store_path.hash
            )
            assert (await client.call(f"{SERVICE}/Get", wanted)).wire == expected
            listed = await client.call(
                f"{SERVICE}/List", message("tvix.store.v1.ListPathInfoRequest")
            )
            assert [each.SerializeToString() for each in listed.replies] == [expected]
        async with raw_client(served.address) as raw:
            request = methods.DESCRIBE.request.encode(Describe(info.store_path.hash))
            call = await raw.call(methods.DESCRIBE.path(), request)
            assert call.status is Status.OK
            (reply,) = call.messages
            assert methods.DESCRIBE.reply.decode(reply) == signed(info, TRUSTED)
