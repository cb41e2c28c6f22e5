"""What clients ask about the server itself: health, and what it speaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import descriptor_pool
from grpc import StatusCode
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.rpc.google import GoogleClient, compiled, google_client, message
from tests.rpc.support import Served, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.may_leave("threads", "files")

SERVICES = {
    *(f"{package}.castore.v1.BlobService" for package in ("tvix", "snix")),
    *(f"{package}.castore.v1.DirectoryService" for package in ("tvix", "snix")),
    *(f"{package}.store.v1.PathInfoService" for package in ("tvix", "snix")),
    "tvixstore.v1.Admin",
    "tvixstore.v1.Proxy",
    "tvixstore.v1.Blobs",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[GoogleClient]:
    async with google_client(served.target) as client:
        yield client


def asking(service: str) -> Any:
    return message("grpc.health.v1.HealthCheckRequest", service=service)


@pytest.mark.parametrize("service", ["", *sorted(SERVICES)])
async def test_what_is_served_is_serving(client: GoogleClient, service: str) -> None:
    answer = await client.call("grpc.health.v1.Health/Check", asking(service))
    assert answer.reply.status == 1


async def test_a_service_that_is_not_ours_is_not_found(client: GoogleClient) -> None:
    answer = await client.call("grpc.health.v1.Health/Check", asking("nix.v1.Service"))
    assert answer.status is StatusCode.NOT_FOUND
    watched = await client.call("grpc.health.v1.Health/Watch", asking("nix.v1.Service"))
    assert [reply.status for reply in watched.replies] == [3]


async def test_whoever_watches_learns_of_the_drain(served: Served, client: GoogleClient) -> None:
    watching = client.begin("grpc.health.v1.Health/Watch", [asking("")])
    assert (await asyncio.to_thread(next, watching)).status == 1
    await served.server.drain()
    assert [reply.status for reply in await asyncio.to_thread(list, watching)] == [2]


async def test_an_unknown_method_or_service_is_unimplemented(client: GoogleClient) -> None:
    for path in ("/tvix.castore.v1.BlobService/Delete", "/nix.v1.Service/Get"):
        call = client.channel.unary_unary(path)
        with pytest.raises(Exception, match="UNIMPLEMENTED"):
            await asyncio.to_thread(call, b"")


async def test_reflection_gives_what_googles_compiler_made_of_the_same_files(
    client: GoogleClient,
) -> None:
    def look() -> None:
        database = ProtoReflectionDescriptorDatabase(client.channel)
        assert set(database.get_services()) == SERVICES
        pool = descriptor_pool.DescriptorPool(database)
        for name in sorted(SERVICES):
            service = pool.FindServiceByName(name)
            expected = compiled().FindServiceByName(name)
            assert service.file.serialized_pb == expected.file.serialized_pb
        for package in ("tvix", "snix"):
            for nested in (
                "store.v1.NARInfo.Signature",
                "store.v1.NARInfo.CA",
                "castore.v1.StatBlobResponse.ChunkMeta",
            ):
                assert pool.FindMessageTypeByName(f"{package}.{nested}").full_name
            assert pool.FindEnumTypeByName(f"{package}.store.v1.NARInfo.CA.Hash").full_name
        entry = pool.FindMessageTypeByName("snix.castore.v1.Entry")
        assert [oneof.name for oneof in entry.oneofs] == ["entry"]
        assert "entry" in pool.FindMessageTypeByName("snix.store.v1.PathInfo").fields_by_name
        assert "node" in pool.FindMessageTypeByName("tvix.store.v1.PathInfo").fields_by_name

    await asyncio.to_thread(look)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_answers_question_by_question(client: GoogleClient, version: str) -> None:
    package = f"grpc.reflection.{version}"
    asks = f"{package}.ServerReflectionRequest"
    extension = message(
        f"{package}.ExtensionRequest", containing_type="tvix.castore.v1.Node", extension_number=1
    )
    answer = await client.call(
        f"{package}.ServerReflection/ServerReflectionInfo",
        message(asks, list_services=""),
        message(asks, host="me", file_by_filename="tvix/store/v1/pathinfo.proto"),
        message(asks, file_by_filename="nix.proto"),
        message(asks, file_containing_symbol="tvix.store.v1.PathInfoService.CalculateNAR"),
        message(asks, file_containing_symbol="nix.Store"),
        message(asks, file_containing_extension=extension),
        message(asks, all_extension_numbers_of_type="tvix.castore.v1.Node"),
        message(asks, all_extension_numbers_of_type="nix.Node"),
    )
    assert answer.status is StatusCode.OK
    listed, file, no_file, symbol, no_symbol, no_extension, extensions, no_type = answer.replies
    assert {each.name for each in listed.list_services_response.service} == SERVICES
    assert len(file.file_descriptor_response.file_descriptor_proto) == 1
    assert file.original_request.host == "me"
    assert len(symbol.file_descriptor_response.file_descriptor_proto) == 1
    assert extensions.all_extension_numbers_response.base_type_name == "tvix.castore.v1.Node"
    for absent in (no_file, no_symbol, no_extension, no_type):
        assert absent.error_response.error_code == StatusCode.NOT_FOUND.value[0]


async def test_a_question_that_asks_nothing_is_invalid(client: GoogleClient) -> None:
    method = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    assert (await client.call(method, b"")).status is StatusCode.INVALID_ARGUMENT
