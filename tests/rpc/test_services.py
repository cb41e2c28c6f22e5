"""Every RPC under both names, asked by a client that shares nothing with us but the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode

from tests.castore.samples import golden
from tests.http.support import Store, store_path
from tests.rpc.google import GoogleClient, google_client, message
from tests.rpc.support import Served, serving
from tvixstore.castore import (
    EMPTY_DIGEST,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    SymlinkNode,
    encode_node,
)
from tvixstore.nix import Signature, StorePath
from tvixstore.pathinfo.codec import encode_path_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tvixstore.castore import Node

# grpcio keeps threads and files for the process.
pytestmark = pytest.mark.may_leave("threads", "files")

ABSENT = Digest.of(b"absent")
BOTH = pytest.mark.parametrize("package", ["tvix", "snix"])


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(await Store.filled()) as served:
        yield served


@pytest.fixture
async def client(served: Served) -> AsyncIterator[GoogleClient]:
    async with google_client(served.target) as client:
        yield client


async def put_tree(store: Store) -> tuple[Directory, Directory]:
    """A Directory and its child."""
    child = Directory.of([(b"\xff not UTF-8", SymlinkNode(b"target"))])
    root = Directory.of([(b"child", DirectoryNode(child.digest, child.size))])
    await store.directories.put_many([child, root])
    return root, child


@BOTH
async def test_a_blob_that_is_put_can_be_statted_and_read(
    client: GoogleClient, package: str
) -> None:
    service = f"{package}.castore.v1.BlobService"
    parts = [b"a" * 300_000, b"", b"b" * 300_000]
    chunks = [message(f"{package}.castore.v1.BlobChunk", data=part) for part in parts]
    digest = (await client.call(f"{service}/Put", *chunks)).reply.digest
    assert digest == Digest.of(b"".join(parts)).raw
    for flags in ({}, {"send_chunks": True, "send_bao": True}):
        asked = message(f"{package}.castore.v1.StatBlobRequest", digest=digest, **flags)
        assert (await client.call(f"{service}/Stat", asked)).reply.bao == b""
    wanted = message(f"{package}.castore.v1.ReadBlobRequest", digest=digest)
    answer = await client.call(f"{service}/Read", wanted)
    assert answer.status is StatusCode.OK
    assert b"".join(reply.data for reply in answer.replies) == b"".join(parts)
    assert max(len(reply.data) for reply in answer.replies) <= 256 * 1024


@BOTH
async def test_an_empty_put_is_the_empty_blob(client: GoogleClient, package: str) -> None:
    service = f"{package}.castore.v1.BlobService"
    assert (await client.call(f"{service}/Put")).reply.digest == EMPTY_DIGEST.raw
    wanted = message(f"{package}.castore.v1.ReadBlobRequest", digest=EMPTY_DIGEST.raw)
    answer = await client.call(f"{service}/Read", wanted)
    assert answer.status is StatusCode.OK
    assert b"".join(reply.data for reply in answer.replies) == b""


@BOTH
@pytest.mark.parametrize("name", ["Stat", "Read"])
async def test_an_absent_blob_is_not_found(client: GoogleClient, package: str, name: str) -> None:
    asks = f"{name}BlobRequest"
    for fields in ({}, {"send_chunks": True}) if name == "Stat" else ({},):
        wanted = message(f"{package}.castore.v1.{asks}", digest=ABSENT.raw, **fields)
        answer = await client.call(f"{package}.castore.v1.BlobService/{name}", wanted)
        assert answer.status is StatusCode.NOT_FOUND
        assert str(ABSENT) in answer.details


@BOTH
@pytest.mark.parametrize(
    ("method", "asks", "field"),
    [
        ("castore.v1.BlobService/Stat", "castore.v1.StatBlobRequest", "digest"),
        ("castore.v1.BlobService/Read", "castore.v1.ReadBlobRequest", "digest"),
        ("castore.v1.DirectoryService/Get", "castore.v1.GetDirectoryRequest", "digest"),
        ("store.v1.PathInfoService/Get", "store.v1.GetPathInfoRequest", "by_output_hash"),
    ],
)
@pytest.mark.parametrize("digest", [b"", b"short", b"l" * 33])
async def test_a_digest_of_another_length_is_invalid(
    client: GoogleClient, package: str, method: str, asks: str, field: str, digest: bytes
) -> None:
    wanted = message(f"{package}.{asks}", **{field: digest})
    answer = await client.call(f"{package}.{method}", wanted)
    assert answer.status is StatusCode.INVALID_ARGUMENT
    assert f".{field} is {len(digest)} bytes long" in answer.details


@BOTH
async def test_a_directory_and_its_closure_are_read(
    served: Served, client: GoogleClient, package: str
) -> None:
    root, child = await put_tree(served.store)
    asks, method = f"{package}.castore.v1.GetDirectoryRequest", "castore.v1.DirectoryService/Get"
    one = await client.call(f"{package}.{method}", message(asks, digest=root.digest.raw))
    assert one.wire == root.wire
    wanted = message(asks, digest=root.digest.raw, recursive=True)
    closure = await client.call(f"{package}.{method}", wanted)
    assert closure.status is StatusCode.OK
    assert [each.SerializeToString() for each in closure.replies] == [root.wire, child.wire]


@BOTH
async def test_an_absent_directory_is_not_found_and_an_absent_closure_is_empty(
    client: GoogleClient, package: str
) -> None:
    asks, method = f"{package}.castore.v1.GetDirectoryRequest", "castore.v1.DirectoryService/Get"
    one = await client.call(f"{package}.{method}", message(asks, digest=ABSENT.raw))
    assert one.status is StatusCode.NOT_FOUND
    wanted = message(asks, digest=ABSENT.raw, recursive=True)
    closure = await client.call(f"{package}.{method}", wanted)
    assert (closure.status, closure.replies) == (StatusCode.OK, [])


@BOTH
async def test_a_missing_descendant_ends_the_closure_as_unavailable(
    served: Served, client: GoogleClient, package: str
) -> None:
    root, child = await put_tree(served.store)
    del served.store.directories.directories[child.digest]
    wanted = message(
        f"{package}.castore.v1.GetDirectoryRequest", digest=root.digest.raw, recursive=True
    )
    closure = await client.call(f"{package}.castore.v1.DirectoryService/Get", wanted)
    assert closure.status is StatusCode.UNAVAILABLE
    assert str(child.digest) in closure.details


@BOTH
async def test_a_closure_is_put_with_repeats(
    served: Served, client: GoogleClient, package: str
) -> None:
    child = Directory.of([(b"link", SymlinkNode(package.encode()))])
    node = DirectoryNode(child.digest, child.size)
    root = Directory.of([(b"a", node), (b"b", node)])
    answer = await client.call(
        f"{package}.castore.v1.DirectoryService/Put", child.wire, child.wire, root.wire
    )
    assert answer.reply.root_digest == root.digest.raw
    assert await served.store.directories.get(root.digest) == root
    assert await served.store.directories.get(child.digest) == child


@BOTH
@pytest.mark.parametrize("case", ["none", "no child", "loose", "root first", "wrong size"])
async def test_what_is_no_closure_is_invalid_and_leaves_nothing(
    served: Served, client: GoogleClient, package: str, case: str
) -> None:
    child = Directory.of([(b"link", SymlinkNode(b"t"))])
    root = Directory.of([(b"a", DirectoryNode(child.digest, child.size))])
    loose = Directory.of([(b"other", SymlinkNode(b"t"))])
    wrong = Directory.of([(b"a", DirectoryNode(child.digest, 77))])
    before = dict(served.store.directories.directories)
    sent = {
        "none": [],
        "no child": [root],
        "loose": [loose, child, root],
        "root first": [root, child],
        "wrong size": [child, wrong],
    }[case]
    method = f"{package}.castore.v1.DirectoryService/Put"
    answer = await client.call(method, *[each.wire for each in sent])
    assert answer.status is StatusCode.INVALID_ARGUMENT
    assert served.store.directories.directories == before


@BOTH
async def test_a_path_info_is_read(served: Served, client: GoogleClient, package: str) -> None:
    info = served.store.path.info
    wanted = message(f"{package}.store.v1.GetPathInfoRequest", by_output_hash=info.store_path.hash)
    answer = await client.call(f"{package}.store.v1.PathInfoService/Get", wanted)
    assert answer.wire == encode_path_info(info)


@BOTH
async def test_an_absent_path_is_not_found(client: GoogleClient, package: str) -> None:
    wanted = message(f"{package}.store.v1.GetPathInfoRequest", by_output_hash=b"\xff" * 20)
    answer = await client.call(f"{package}.store.v1.PathInfoService/Get", wanted)
    assert answer.status is StatusCode.NOT_FOUND


@BOTH
async def test_a_path_info_that_is_put_agrees_with_its_content_and_keeps_all_signatures(
    served: Served, client: GoogleClient, package: str
) -> None:
    method = f"{package}.store.v1.PathInfoService/Put"
    first, second = (Signature(f"key-{n}", bytes([n]) * 64) for n in (1, 2))
    info = replace(served.store.path.info, signatures=(first,))
    assert (await client.call(method, encode_path_info(info))).status is StatusCode.OK
    answer = await client.call(method, encode_path_info(replace(info, signatures=(second,))))
    assert [each.name for each in answer.reply.narinfo.signatures] == ["key-1", "key-2"]
    stored = await served.store.path_infos.get(info.store_path.hash)
    assert stored is not None
    assert stored.signatures == (first, second)


@BOTH
@pytest.mark.parametrize("wrong", [{"nar_size": 1}, {"nar_sha256": b"\0" * 32}, {"nar_size": 0}])
async def test_a_path_info_whose_nar_is_another_is_invalid(
    served: Served, client: GoogleClient, package: str, wrong: dict[str, Any]
) -> None:
    info = replace(served.store.path.info, store_path=StorePath(b"\1" * 20, "liar"), **wrong)
    answer = await client.call(f"{package}.store.v1.PathInfoService/Put", encode_path_info(info))
    assert answer.status is StatusCode.INVALID_ARGUMENT
    assert "narinfo.nar_s" in answer.details
    assert await served.store.path_infos.get(b"\1" * 20) is None


@BOTH
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "remembered"])
@pytest.mark.parametrize("lost", ["root", "directory below", "file", "file below"])
async def test_a_path_info_whose_content_went_is_a_failed_precondition(
    served: Served, client: GoogleClient, package: str, known: bool, lost: str
) -> None:
    store, method = served.store, f"{package}.store.v1.PathInfoService/Put"
    if known:
        # What its NAR is stays known, whatever goes.
        answer = await client.call(method, encode_path_info(store.path.info))
        assert answer.status is StatusCode.OK
    root = store.path.info.node
    assert isinstance(root, DirectoryNode)
    top = dict(store.directories.directories[root.digest])
    below, file = top[b"bin"], top[b"data"]
    assert isinstance(below, DirectoryNode) and isinstance(file, FileNode)
    (_, tool), *_ = store.directories.directories[below.digest]
    assert isinstance(tool, FileNode)
    digests = {"root": root.digest, "directory below": below.digest}
    digest = {**digests, "file": file.digest, "file below": tool.digest}[lost]
    gone = store.directories.directories.pop(digest, None) or store.blobs.blobs.pop(digest, None)
    assert gone is not None
    info = replace(store.path.info, store_path=StorePath(b"\1" * 20, "another"))
    answer = await client.call(method, encode_path_info(info))
    assert answer.status is StatusCode.FAILED_PRECONDITION
    assert str(digest) in answer.details and "put it first, or again" in answer.details
    assert await store.path_infos.get(b"\1" * 20) is None


@BOTH
async def test_all_path_infos_are_listed(
    served: Served, client: GoogleClient, package: str
) -> None:
    store = served.store
    for number in range(5):
        node = SymlinkNode(b"target %d" % number)
        await store_path(store.path_infos, store.content, f"link-{number}", node)
    answer = await client.call(
        f"{package}.store.v1.PathInfoService/List",
        message(f"{package}.store.v1.ListPathInfoRequest"),
    )
    assert answer.status is StatusCode.OK
    sent = {each.SerializeToString() for each in answer.replies}
    assert sent == {encode_path_info(info) for info in store.path_infos.infos.values()}
    assert len(sent) == 6


@BOTH
async def test_a_nar_is_calculated_once(served: Served, client: GoogleClient, package: str) -> None:
    path, method = served.store.path, f"{package}.store.v1.PathInfoService/CalculateNAR"
    for _ in range(2):
        reply = (await client.call(method, encode_node(path.info.node))).reply
        assert (reply.nar_size, reply.nar_sha256) == (len(path.nar), path.info.nar_sha256)
        # The second answer is remembered.
        served.store.blobs.blobs.clear()


@BOTH
@pytest.mark.parametrize(
    "node",
    [
        FileNode(ABSENT, 3),
        DirectoryNode(ABSENT, 3),
    ],
    ids=["file", "directory"],
)
async def test_calculating_a_nar_of_what_is_missing_is_not_found(
    client: GoogleClient, package: str, node: Node
) -> None:
    answer = await client.call(
        f"{package}.store.v1.PathInfoService/CalculateNAR", encode_node(node)
    )
    assert answer.status is StatusCode.NOT_FOUND
    assert str(ABSENT) in answer.details


@BOTH
@pytest.mark.parametrize(
    "wire",
    [
        encode_node(SymlinkNode(b"t"), b"name"),
        b"",
        b"\x0a\x02\x0a",
        encode_node(SymlinkNode(b"t")) * 2,
    ],
    ids=["named", "empty", "cut off", "two of the oneof"],
)
async def test_calculating_a_nar_of_what_is_no_root_is_invalid(
    client: GoogleClient, package: str, wire: bytes
) -> None:
    answer = await client.call(f"{package}.store.v1.PathInfoService/CalculateNAR", wire)
    assert answer.status is StatusCode.INVALID_ARGUMENT


@BOTH
async def test_trees_deeper_than_a_nar_can_be_are_directories_but_no_paths(
    served: Served, client: GoogleClient, package: str
) -> None:
    levels = [Directory.of([(b"bottom", SymlinkNode(b"t"))])]
    for _ in range(200):
        node = DirectoryNode(levels[-1].digest, levels[-1].size)
        levels.append(Directory.of([(b"down", node)]))
    wires = [each.wire for each in levels]
    answer = await client.call(f"{package}.castore.v1.DirectoryService/Put", *wires)
    assert answer.reply.root_digest == levels[-1].digest.raw
    wanted = message(
        f"{package}.castore.v1.GetDirectoryRequest",
        digest=levels[-1].digest.raw,
        recursive=True,
    )
    closure = await client.call(f"{package}.castore.v1.DirectoryService/Get", wanted)
    assert [each.SerializeToString() for each in closure.replies] == wires[::-1]
    root = DirectoryNode(levels[-1].digest, levels[-1].size)
    nar = await client.call(f"{package}.store.v1.PathInfoService/CalculateNAR", encode_node(root))
    assert nar.status is StatusCode.INVALID_ARGUMENT


PATH_INFOS = golden("pathinfo.json")


@BOTH
@pytest.mark.parametrize("vector", PATH_INFOS["invalid"], ids=lambda vector: vector["what"])
async def test_an_invalid_path_info_is_invalid_whatever_its_content(
    client: GoogleClient, package: str, vector: dict[str, str]
) -> None:
    wire = bytes.fromhex(vector["wire_hex"])
    answer = await client.call(f"{package}.store.v1.PathInfoService/Put", wire)
    assert answer.status is StatusCode.INVALID_ARGUMENT


@BOTH
@pytest.mark.parametrize("vector", PATH_INFOS["valid"], ids=lambda vector: vector["what"])
async def test_a_valid_path_info_without_its_content_is_a_failed_precondition(
    client: GoogleClient, package: str, vector: dict[str, str]
) -> None:
    wire = bytes.fromhex(vector["wire_hex"])
    answer = await client.call(f"{package}.store.v1.PathInfoService/Put", wire)
    assert answer.status is StatusCode.FAILED_PRECONDITION
