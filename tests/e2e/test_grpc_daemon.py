"""The daemon over gRPC: what is put stays and travels on, and how it ends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import StatusCode

from tests.castore.samples import golden
from tests.rpc.google import GoogleClient, message
from tests.rpc.raw import framed, raw_client
from tests.support.composed import (
    BLOBS,
    DIRECTORIES,
    PATH_INFOS,
    ComposedDaemon,
    bytes_of,
    client_of,
    closure_of,
    grpc_target,
    laptop,
    local_store,
    memory,
    office,
    open_files,
    put_blob,
    put_directories,
    read_blob,
    reading,
    stat_blob,
)
from tvixstore.castore import (
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    SizeRule,
    SymlinkNode,
    encode_node,
)
from tvixstore.nix import StorePath
from tvixstore.pathinfo import PathInfo
from tvixstore.pathinfo.codec import encode_path_info
from tvixstore.rpc.messages import BLOB_DATA, READ_BLOB
from tvixstore.rpc.methods import READ_BLOB as READ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from google.protobuf.message import Message

    from tests.support.daemon import Daemon

# grpcio keeps threads and files for the process.
pytestmark = pytest.mark.may_leave("threads", "files")

KiB, MiB = 1 << 10, 1 << 20
SIZES = [0, 1, 1023, 1024, 1025, 256 * KiB - 1, 256 * KiB, 256 * KiB + 1, 5 * MiB]
# The levels of a NAR at most, the file at the bottom being one.
MAX_LEVELS = 64
# Has memory that is free go back to the system, so that what is held can be seen from outside.
GIVES_BACK = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 * KiB),
    "MALLOC_TRIM_THRESHOLD_": str(128 * KiB),
}
# Imported by every Python that finds it: what is garbage goes when we say so.
COLLECTS = "import gc, signal\nsignal.signal(signal.SIGUSR1, lambda *_: gc.collect())\n"


@dataclass
class Pair:
    """A laptop over an office, each with a client of its own."""

    far: Daemon
    near: Daemon
    far_client: GoogleClient
    near_client: GoogleClient


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        far = office(tmp_path)
        await far.start()
        stack.push_async_exit(far)
        near = await stack.enter_async_context(laptop(tmp_path, far))
        clients = [await stack.enter_async_context(client_of(each)) for each in (far, near)]
        yield Pair(far, near, *clients)


def levels(count: int) -> list[Directory]:
    """A tree of so many Directories, one in the other, the innermost first."""
    tree = [Directory.of([(b"bottom", SymlinkNode(b"target"))])]
    while len(tree) < count:
        tree.append(Directory.of([(b"down", DirectoryNode(tree[-1].digest, tree[-1].size))]))
    return tree


def node_of(directory: Directory) -> DirectoryNode:
    return DirectoryNode(directory.digest, directory.size)


def info_of(node: DirectoryNode, sha256: bytes = bytes(32), size: int = 1) -> PathInfo:
    path = StorePath(hashlib.sha256(encode_node(node)).digest()[:20], "tree-1.0")
    return PathInfo(store_path=path, nar_sha256=sha256, nar_size=size, node=node)


async def put_path(client: GoogleClient, node: DirectoryNode) -> PathInfo:
    """Puts what is there already as a store path."""
    nar = (await client.call(f"{PATH_INFOS}/CalculateNAR", encode_node(node))).reply
    info = info_of(node, nar.nar_sha256, nar.nar_size)
    assert (await client.call(f"{PATH_INFOS}/Put", encode_path_info(info))).wire
    return info


def wires(replies: Iterable[Message]) -> list[bytes]:
    return [reply.SerializeToString() for reply in replies]


async def test_blobs_of_every_size_travel_cold_and_warm_with_the_office_gone(pair: Pair) -> None:
    blobs = [random.Random(size).randbytes(size) for size in SIZES]
    digests = [await put_blob(pair.far_client, blob) for blob in blobs]
    assert digests == [Digest.of(blob) for blob in blobs]
    for digest, blob in zip(digests, blobs, strict=True):
        assert (await stat_blob(pair.near_client, digest)).status is StatusCode.OK
        assert bytes_of(await read_blob(pair.near_client, digest)) == blob
    await pair.far.stop()
    for digest, blob in zip(digests, blobs, strict=True):
        assert (await stat_blob(pair.near_client, digest)).status is StatusCode.OK
        assert bytes_of(await read_blob(pair.near_client, digest)) == blob


async def test_each_chunk_that_is_listed_is_a_blob_too(pair: Pair) -> None:
    data = random.Random("chunks").randbytes(5 * MiB)
    digest = await put_blob(pair.far_client, data)
    wanted = message("tvix.castore.v1.StatBlobRequest", digest=digest.raw, send_chunks=True)
    for client in (pair.far_client, pair.near_client):
        chunks = (await client.call(f"{BLOBS}/Stat", wanted)).reply.chunks
        assert len(chunks) > 1
        parts = []
        for chunk in chunks:
            assert (await stat_blob(client, Digest(chunk.digest))).status is StatusCode.OK
            parts.append(bytes_of(await read_blob(client, Digest(chunk.digest))))
        assert [len(part) for part in parts] == [chunk.size for chunk in chunks]
        assert b"".join(parts) == data


@pytest.mark.slow
async def test_a_blob_of_300_mb_travels_in_bounded_memory(pair: Pair) -> None:
    piece = random.Random(300).randbytes(3 * MiB)
    parts = [piece[start:] + piece[:start] for start in range(100)]
    whole = hashlib.sha256(b"".join(parts)).digest()
    before = memory(pair.far), memory(pair.near)
    digest = await put_blob(pair.far_client, b"".join(parts))
    del parts
    for client in (pair.near_client, pair.far_client, pair.near_client):
        call = client.begin(f"{BLOBS}/Read", [reading(digest)])
        assert await asyncio.to_thread(_sha256_of, call) == whole
    for daemon, bytes_before in zip((pair.far, pair.near), before, strict=True):
        assert memory(daemon) - bytes_before < 100 * MiB


def _sha256_of(call: grpc.Call) -> bytes:
    hashed = hashlib.sha256()
    for reply in call:
        hashed.update(reply.data)
    return hashed.digest()


async def test_directories_of_10000_entries_travel_cold_and_warm(pair: Pair) -> None:
    names = [b"\xff\xfe not UTF-8 %05d" % number for number in range(10_000)]
    large = Directory.of([(name, FileNode(Digest.of(name), 7)) for name in names])
    root = Directory.of([(b"\x80", node_of(large))])
    await put_directories(pair.far_client, large, root)
    for stop in (pair.far.stop, None):
        answer = await closure_of(pair.near_client, root.digest)
        assert wires(answer.replies) == [root.wire, large.wire]
        if stop is not None:
            await stop()


async def test_trees_of_200_levels_travel_cold_and_warm(pair: Pair) -> None:
    tree = levels(200)
    root = await put_directories(pair.far_client, *tree)
    for stop in (pair.far.stop, None):
        answer = await closure_of(pair.near_client, root)
        assert wires(answer.replies) == [each.wire for each in reversed(tree)]
        if stop is not None:
            await stop()


async def test_trees_deeper_than_a_nar_are_no_paths_in_either_daemon(pair: Pair) -> None:
    tree = levels(200)
    await put_directories(pair.far_client, *tree)
    for client in (pair.far_client, pair.near_client):
        # The symlink at the bottom is a level too.
        deepest, too_deep = node_of(tree[MAX_LEVELS - 2]), node_of(tree[MAX_LEVELS - 1])
        fits = await client.call(f"{PATH_INFOS}/CalculateNAR", encode_node(deepest))
        assert fits.status is StatusCode.OK
        for node in (too_deep, node_of(tree[-1])):
            nar = await client.call(f"{PATH_INFOS}/CalculateNAR", encode_node(node))
            assert nar.status is StatusCode.INVALID_ARGUMENT
            put = await client.call(f"{PATH_INFOS}/Put", encode_path_info(info_of(node)))
            assert put.status is StatusCode.INVALID_ARGUMENT


async def test_closures_with_either_rule_of_sizes_travel_and_none_with_both(pair: Pair) -> None:
    for rule in SizeRule:
        tree = _sized_tree(rule)
        root = await put_directories(pair.far_client, *tree)
        answer = await closure_of(pair.near_client, root)
        assert set(wires(answer.replies)) == {each.wire for each in tree}
        assert (await put_path(pair.near_client, DirectoryNode(root, rule.size_of(tree[-1])))).node
    leaf, middle, _ = _sized_tree(SizeRule.DOCUMENTED)
    mixed = Directory.of([(b"m", DirectoryNode(middle.digest, SizeRule.DOUBLED.size_of(middle)))])
    for client in (pair.far_client, pair.near_client):
        put = await client.call(f"{DIRECTORIES}/Put", leaf.wire, middle.wire, mixed.wire)
        assert put.status is StatusCode.INVALID_ARGUMENT
        assert (await closure_of(client, mixed.digest)).replies == []


def _sized_tree(rule: SizeRule) -> list[Directory]:
    tree = [Directory.of([(b"one", SymlinkNode(b"1")), (b"two", SymlinkNode(b"2"))])]
    for name in (b"middle", b"top"):
        child = tree[-1]
        tree.append(Directory.of([(name, DirectoryNode(child.digest, rule.size_of(child)))]))
    return tree


async def test_a_path_that_is_put_at_the_office_is_had_through_the_laptop(pair: Pair) -> None:
    data = b"\x00\xff" * 100_000
    tree = Directory.of(
        [(b"\xfe", FileNode(await put_blob(pair.far_client, data), len(data), executable=True))]
    )
    await put_directories(pair.far_client, tree)
    info = await put_path(pair.far_client, node_of(tree))
    wanted = message("tvix.store.v1.GetPathInfoRequest", by_output_hash=info.store_path.hash)
    assert (await pair.near_client.call(f"{PATH_INFOS}/Get", wanted)).wire
    target = await pair.near.nar_target(info.store_path.digits)
    nar = (await pair.near.get(target)).body
    assert hashlib.sha256(nar).digest() == info.nar_sha256
    await pair.near.settled()
    await pair.far.stop()
    assert (await pair.near.get(target)).body == nar
    assert bytes_of(await read_blob(pair.near_client, Digest.of(data))) == data


async def test_content_that_only_the_office_has_is_never_absent_while_it_is_gone(
    pair: Pair,
) -> None:
    data = random.Random("far").randbytes(100_000)
    file = FileNode(await put_blob(pair.far_client, data), len(data))
    tree = Directory.of([(b"data", file)])
    await put_directories(pair.far_client, tree)
    info = await put_path(pair.far_client, node_of(tree))
    target = await pair.near.nar_target(info.store_path.digits)
    wanted = message("tvix.store.v1.GetPathInfoRequest", by_output_hash=info.store_path.hash)
    # From now on the laptop has the path info, and nothing of the content.
    assert (await pair.near_client.call(f"{PATH_INFOS}/Get", wanted)).wire
    await pair.far.stop()
    assert (await pair.near.get(target)).status == 503
    answer = await closure_of(pair.near_client, tree.digest)
    assert answer.status is StatusCode.UNAVAILABLE
    assert (await read_blob(pair.near_client, file.digest)).status is StatusCode.UNAVAILABLE
    nar = await pair.near_client.call(f"{PATH_INFOS}/CalculateNAR", encode_node(node_of(tree)))
    assert nar.status in (StatusCode.UNAVAILABLE, StatusCode.OK)


async def test_what_was_put_is_there_after_the_daemon_was_killed(tmp_path: Path) -> None:
    daemon = ComposedDaemon(tmp_path, local_store())
    await daemon.start()
    data = random.Random("kept").randbytes(3 * MiB)
    async with client_of(daemon) as client:
        tree = Directory.of([(b"data", FileNode(await put_blob(client, data), len(data)))])
        await put_directories(client, tree)
        info = await put_path(client, node_of(tree))
        await daemon.kill()
    async with daemon, client_of(daemon) as client:
        assert bytes_of(await read_blob(client, Digest.of(data))) == data
        everything = message("tvix.store.v1.ListPathInfoRequest")
        listed = await client.call(f"{PATH_INFOS}/List", everything)
        assert wires(listed.replies) == [encode_path_info(info)]
        # Remembered as well; content is asked for all the same.
        again = await client.call(f"{PATH_INFOS}/CalculateNAR", encode_node(info.node))
        assert again.reply.nar_sha256 == info.nar_sha256
        target = await daemon.nar_target(info.store_path.digits)
        assert hashlib.sha256((await daemon.get(target)).body).digest() == info.nar_sha256


async def test_200_clients_through_both_of_whom_half_leave_cost_nothing_that_stays(
    tmp_path: Path,
) -> None:
    blobs = [random.Random(f"of many {number}").randbytes(2 * MiB) for number in range(12)]
    digests = [Digest.of(blob) for blob in blobs]

    async def read(address: str, number: int) -> bool:
        which = number % len(blobs)
        async with raw_client(address) as client:
            begun = client.begin(READ.path())
            call = client.calls[begun]
            client.send(begun, framed(READ_BLOB.encode(digests[which])), end=True)
            if number % 2:
                await client.until(lambda: len(call.data) > 300 * KiB)
                return True
            await client.ended(begun)
            return b"".join(map(BLOB_DATA.decode, call.messages)) == blobs[which]

    (tmp_path / "sitecustomize.py").write_text(COLLECTS)
    search = os.pathsep.join((str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])))
    far = office(tmp_path)
    near = laptop(tmp_path, far)
    async with AsyncExitStack() as stack:
        for daemon in (far, near):
            await daemon.start(**GIVES_BACK, PYTHONPATH=search)
            stack.push_async_exit(daemon)
        async with client_of(far) as client:
            for blob in blobs:
                await put_blob(client, blob)
        async with client_of(near) as client:
            # What is opened once for all is not counted.
            assert bytes_of(await read_blob(client, digests[0])) == blobs[0]
        idle = [(open_files(each), memory(each)) for each in (far, near)]
        for _ in range(3):
            address = grpc_target(near)
            reads = await asyncio.gather(*(read(address, number) for number in range(200)))
            assert all(reads)
            for daemon, (files, held) in zip((far, near), idle, strict=True):
                await _until_idle(daemon, files, held)


async def _until_idle(daemon: Daemon, files: int, held: int) -> None:
    """Returns once it holds about as much as when it was idle."""
    now = 0, 0
    try:
        async with asyncio.timeout(30):
            while now[0] > files + 4 or not 0 < now[1] < held + 32 * MiB:
                os.kill(daemon.pid, signal.SIGUSR1)
                await daemon.get("/healthz")
                now = open_files(daemon), memory(daemon)
    except TimeoutError:
        raise AssertionError(f"{now} files and bytes are held, {files, held} before") from None


async def test_streams_that_run_come_to_their_end_before_it_stops(tmp_path: Path) -> None:
    data = random.Random("drained").randbytes(32 * MiB)
    daemon = ComposedDaemon(tmp_path, local_store(), {"drain_timeout": "1m"})
    await daemon.start()
    async with client_of(daemon) as client:
        digest = await put_blob(client, data)
        call = client.begin(f"{BLOBS}/Read", [reading(digest)])
        first = await asyncio.to_thread(next, call)
        stopping = asyncio.create_task(daemon.stop())
        await daemon.logged("draining")
        async with client_of(daemon) as late:
            answer = await late.call(
                f"{BLOBS}/Stat", message("tvix.castore.v1.StatBlobRequest", digest=digest.raw)
            )
            assert answer.status is StatusCode.UNAVAILABLE
        rest = await asyncio.to_thread(lambda: b"".join(reply.data for reply in call))
        assert first.data + rest == data
        assert call.code() is StatusCode.OK
        await stopping


async def test_a_stream_that_nobody_reads_holds_it_up_no_longer_than_it_may(
    tmp_path: Path,
) -> None:
    daemon = ComposedDaemon(tmp_path, local_store(), {"drain_timeout": "200ms"})
    await daemon.start()
    async with client_of(daemon) as client:
        digest = await put_blob(client, bytes(64 * MiB))
    async with raw_client(grpc_target(daemon)) as reader:
        reader.reads = False
        number = reader.begin(READ.path())
        reader.send(number, framed(READ_BLOB.encode(digest)), end=True)
        await reader.until(lambda: len(reader.calls[number].data) > 10_000)
        await daemon.stop()
        assert daemon.events("drain.cancelled")


@pytest.mark.parametrize("writes", ["auto", True])
async def test_others_may_put_only_if_the_compose_file_says_so(
    tmp_path: Path, writes: str | bool
) -> None:
    settings = {"http": "0.0.0.0:0", "writes": writes}
    async with ComposedDaemon(tmp_path, local_store(), settings) as daemon:
        line = daemon.events("listening")[-1]
        assert line["writes"] is (writes is True)
        assert "machines can connect" in line["why"] or writes is True
        async with client_of(daemon) as client:
            put = await client.call(f"{BLOBS}/Put")
            (vector, *_) = golden("pathinfo.json")["valid"]
            calls = [
                put,
                await client.call(f"{DIRECTORIES}/Put", Directory.of([]).wire),
                await client.call(f"{PATH_INFOS}/Put", bytes.fromhex(vector["wire_hex"])),
            ]
            denied = [answer.status is StatusCode.PERMISSION_DENIED for answer in calls]
            assert denied == [writes == "auto"] * 3
            # Asking is for everybody.
            assert (await stat_blob(client, Digest.of(b""))).status is StatusCode.OK


async def test_both_fronts_on_unix_sockets_take_writes_and_take_the_sockets_away(
    tmp_path: Path,
) -> None:
    settings = {"grpc": "unix:grpc.sock", "http": "unix:http.sock"}
    async with ComposedDaemon(tmp_path, local_store(), settings) as daemon:
        line = daemon.events("listening")[-1]
        assert line["grpc"] == f"grpc+unix://{tmp_path / 'grpc.sock'}"
        assert line["writes"] is True
        async with client_of(daemon) as client:
            assert bytes_of(await read_blob(client, await put_blob(client, b"data"))) == b"data"
    assert not {"grpc.sock", "http.sock"} & set(os.listdir(tmp_path))
