"""gRPC: blobs read and put, short calls 32 at a time, and a closure of 5,000 Directories.

Ceilings are bare grpclib, which sends the very messages that the daemon sends (reads, the closure),
or an empty one (puts, short calls).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.caches import MiB, random_bytes
from bench.grpc_client import Job, Outcome
from bench.harness import RUNS, Row, Server, cpu_seconds, median, ratio, workspace
from tests.support.composed import (
    ComposedDaemon,
    client_of,
    grpc_target,
    local_store,
    put_blob,
    put_directories,
)
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode
from tvixstore.nix import StorePath
from tvixstore.pathinfo import PathInfo
from tvixstore.pathinfo.codec import encode_path_info
from tvixstore.rpc import methods
from tvixstore.rpc.messages import GetDirectory, StatBlob

if TYPE_CHECKING:
    from tests.rpc.google import GoogleClient

_BLOB = 64 * MiB
_SMALL, _DIRECTORIES = 1000, 5000
_IN_FLIGHT, _SECONDS = 32, 2.0
_READS, _PUTS, _CLOSURES = 8, 2, 4


@dataclass
class _Samples:
    """Of the daemon, and of what it is held against; CPU is the server's, in µs a call."""

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    ceiling_rates: list[float] = field(default_factory=list)
    ceiling_costs: list[float] = field(default_factory=list)

    def row(self, work: str, unit: str, least: float | None, against: str) -> Row:
        reached = ratio(self.rates, self.ceiling_rates)
        by_cpu = ratio(self.ceiling_costs, self.costs)
        return Row(
            f"gRPC {work}",
            f"≥ {least} × {against}" if least else f"as near to {against} as can be",
            f"{reached:.2f} × ({median(self.rates):,.0f} {unit}; by CPU {by_cpu:.2f} ×)",
            least is None or reached >= least,
            {
                unit: self.rates,
                "CPU µs/call": self.costs,
                f"ceiling {unit}": self.ceiling_rates,
                "ceiling CPU µs/call": self.ceiling_costs,
            },
        )


async def measure() -> list[Row]:
    async with (
        workspace() as folder,
        ComposedDaemon(folder, local_store()) as daemon,
        client_of(daemon) as client,
    ):
        target = Server(int(grpc_target(daemon).rpartition(":")[2]), daemon.pid)
        return [
            await _read(folder, target, client),
            await _put(folder, target),
            await _stat(folder, target, client),
            await _get_path_info(folder, target, client),
            await _get_directory(folder, target, client),
            await _closure(folder, target, client),
        ]


async def _read(folder: Path, target: Server, client: GoogleClient) -> Row:
    digest = await put_blob(client, random_bytes("read", _BLOB))
    request = methods.READ_BLOB.request.encode(digest)
    replies = await _replies(client, methods.READ_BLOB.path(), request)
    job = Job(methods.READ_BLOB.path(), 0, [request.hex()], count=_READS, expected=_size(replies))
    samples = await _compare(folder, target, job, replies, _megabytes_received)
    return samples.row("read of a blob of 64 MiB", "MB/s", 0.8, "grpclib with the same messages")


async def _put(folder: Path, target: Server) -> Row:
    reply = methods.PUT_BLOB.reply.encode(Digest.of(b""))
    job = Job(methods.PUT_BLOB.path(), 0, [], count=_PUTS, put=_BLOB)
    samples = await _compare(folder, target, job, [reply], _megabytes_sent)
    return samples.row("put of blobs of 64 MiB", "MB/s", 0.5, "grpclib with the same messages")


async def _stat(folder: Path, target: Server, client: GoogleClient) -> Row:
    digests = [await put_blob(client, b"blob %d" % number) for number in range(_SMALL)]
    encode = methods.STAT_BLOB.request.encode
    requests = [encode(StatBlob(digest)) for digest in digests]
    return await _hammer(folder, target, "Stat", methods.STAT_BLOB.path(), requests)


async def _get_path_info(folder: Path, target: Server, client: GoogleClient) -> Row:
    data = b"what all of these paths have"
    node = FileNode(await put_blob(client, data), len(data))
    nar = await client.call(
        methods.CALCULATE_NAR.path()[1:], methods.CALCULATE_NAR.request.encode(node)
    )
    hashes = [Digest.of(b"path %d" % number).raw[:20] for number in range(_SMALL)]
    for path_hash in hashes:
        info = PathInfo(
            store_path=StorePath(path_hash, "some-package-1.0"),
            nar_sha256=nar.reply.nar_sha256,
            nar_size=nar.reply.nar_size,
            node=node,
            references=tuple(StorePath(each, "some-library-2.1") for each in hashes[:3]),
        )
        put = await client.call(methods.PUT_PATH_INFO.path()[1:], encode_path_info(info))
        assert put.wire
    requests = [methods.GET_PATH_INFO.request.encode(path_hash) for path_hash in hashes]
    return await _hammer(
        folder, target, "Get of path infos", methods.GET_PATH_INFO.path(), requests
    )


async def _get_directory(folder: Path, target: Server, client: GoogleClient) -> Row:
    directories = [_directory(number) for number in range(_SMALL)]
    for directory in directories:
        await put_directories(client, directory)
    encode = methods.GET_DIRECTORY.request.encode
    requests = [encode(GetDirectory(directory.digest)) for directory in directories]
    return await _hammer(
        folder, target, "Get of Directories", methods.GET_DIRECTORY.path(), requests
    )


async def _closure(folder: Path, target: Server, client: GoogleClient) -> Row:
    directories = [_directory(number) for number in range(_DIRECTORIES - 1)]
    root = Directory.of(
        (b"package-%05d" % number, DirectoryNode(each.digest, each.size))
        for number, each in enumerate(directories)
    )
    digest = await put_directories(client, *directories, root)
    request = methods.GET_DIRECTORY.request.encode(GetDirectory(digest, recursive=True))
    path = methods.GET_DIRECTORY.path()
    replies = await _replies(client, path, request)
    assert len(replies) == _DIRECTORIES
    job = Job(path, 0, [request.hex()], count=_CLOSURES, expected=_size(replies))
    samples = await _compare(
        folder, target, job, replies, lambda done: done.calls * _DIRECTORIES / done.seconds
    )
    work = f"closure of {_DIRECTORIES:,} Directories"
    return samples.row(work, "Directories/s", None, "grpclib with the same messages")


def _directory(number: int) -> Directory:
    names = [b"file-%d-%d" % (number, each) for each in range(4)]
    return Directory.of((name, FileNode(Digest.of(name), 1000)) for name in names)


async def _hammer(
    folder: Path, target: Server, name: str, path: str, requests: Sequence[bytes]
) -> Row:
    job = Job(path, 0, [each.hex() for each in requests], in_flight=_IN_FLIGHT, seconds=_SECONDS)
    samples = await _compare(folder, target, job, [b""], lambda done: done.calls / done.seconds)
    return samples.row(
        f"{name}, {_IN_FLIGHT} in flight", "calls/s", 0.75, "grpclib with an empty handler"
    )


async def _compare(
    folder: Path,
    target: Server,
    job: Job,
    replies: Sequence[bytes],
    rate: Callable[[Outcome], float],
) -> _Samples:
    """The same job put on the daemon and on a server that sends `replies`, in turn."""
    samples = _Samples()
    script = folder / "replies.json"
    script.write_text(json.dumps({job.path: [reply.hex() for reply in replies]}))
    async with ceiling(script) as bare:
        # Once uncounted: from then on the system has the files in its cache.
        await _load(target, replace(job, seed="first"))
        for number in range(RUNS):
            for each, rates, costs in (
                (target, samples.rates, samples.costs),
                (bare, samples.ceiling_rates, samples.ceiling_costs),
            ):
                # Nobody has what is put yet.
                outcome, cpu = await _load(each, replace(job, seed=f"{number}"))
                rates.append(rate(outcome))
                costs.append(cpu / outcome.calls * 1e6)
    return samples


@asynccontextmanager
async def ceiling(script: Path) -> AsyncIterator[Server]:
    """`bench.grpc_server` on that file."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.grpc_server", str(script)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield Server(int(await process.stdout.readline()), process.pid)
    finally:
        process.kill()
        await process.wait()


async def _load(target: Server, job: Job) -> tuple[Outcome, float]:
    """What came of the job, and the seconds of CPU that the server spent on it."""
    before = cpu_seconds(target.pid)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.grpc_client"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate(json.dumps(asdict(replace(job, port=target.port))).encode())
    if process.returncode:
        raise SystemExit(f"the load on {target.url} failed")
    return Outcome(**json.loads(told)), cpu_seconds(target.pid) - before


async def _replies(client: GoogleClient, path: str, request: bytes) -> list[bytes]:
    """The messages that the daemon answers by, as they are on the wire."""
    answer = await client.call(path[1:], request)
    return [reply.SerializeToString(deterministic=True) for reply in answer.replies]


def _size(replies: Sequence[bytes]) -> int:
    return sum(5 + len(reply) for reply in replies)


def _megabytes_received(done: Outcome) -> float:
    return done.received / done.seconds / 1e6


def _megabytes_sent(done: Outcome) -> float:
    return done.sent / done.seconds / 1e6
