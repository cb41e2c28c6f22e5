"""Eviction from a store of 100,000 paths, while others are read: how long the longest read takes.

For a minute of it: all of them take several, in which nothing else happens.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from time import perf_counter

from bench.caches import halving_bytes
from bench.harness import Row, Server, load, percentile, running, workspace
from tests.nar.trees import File, Tree, nar_of
from tests.support.daemon import Daemon
from tvixstore.blob.chunk_codec import encode_chunk
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode
from tvixstore.directory.local import keys_in
from tvixstore.evict import StoredEdges
from tvixstore.http.urls import nar_url
from tvixstore.kv import Holds, LmdbEngine, References, StateDirectory
from tvixstore.nix import StorePath
from tvixstore.pathinfo import PathInfo
from tvixstore.pathinfo.codec import encode_record

_PATHS, _READ = 100_000, 100
_FILES, _BYTES = 3, 2000
_CONNECTIONS = 4
_SECONDS = 60.0
# How often each of them is read in one go: what is told of it has to fit into a pipe.
_TIMES = 10
_BATCH = 1000
_AGE = 2 * 86400


async def measure() -> list[Row]:
    async with workspace() as folder:
        process = Daemon(folder / "daemon", [], store={"max_age": "24h"})
        targets = await _write(process.state)
        async with running(process) as server:
            waits, took = await _read(server, targets, _SECONDS)
            evicted = await process.metric("tvixstore_evictions_total")
        async with running(Daemon(folder / "daemon", [])) as server:
            quiet, _ = await _read(server, targets, _SECONDS / 4)
    longest, most = max(waits) * 1e3, percentile(waits, 0.999) * 1e3
    return [
        Row(
            f"eviction from {_PATHS:,} paths of {_FILES} small files each",
            "no reader stalled over 50 ms",
            f"{longest:.0f} ms the longest of {len(waits):,} reads, {most:.1f} ms at 99.9 %; "
            f"{evicted / took:,.0f} paths/s (without eviction: {max(quiet) * 1e3:.0f} ms the "
            f"longest of {len(quiet):,}, {percentile(quiet, 0.999) * 1e3:.1f} ms at 99.9 %)",
            longest <= 50,
            {
                "longest reads while evicting, ms": [each * 1e3 for each in sorted(waits)[-100:]],
                "longest reads without, ms": [each * 1e3 for each in sorted(quiet)[-100:]],
                "paths evicted": [evicted],
                "seconds of evicting": [took],
            },
        )
    ]


async def _read(server: Server, targets: list[str], seconds: float) -> tuple[list[float], float]:
    """What reads for so many seconds took each, and how many seconds it were."""
    began = perf_counter()
    waits: list[float] = []
    while perf_counter() < began + seconds:
        done = await load(server, "each", targets * _TIMES, connections=_CONNECTIONS)
        waits += done.outcome.waits
    return waits, perf_counter() - began


async def _write(state: Path) -> list[str]:
    """A state with paths that nobody has read for days, and some that are going to be read."""
    with StateDirectory(state) as opened:
        engine = LmdbEngine(opened.index, durability="process")
        references = References(engine, Holds(), StoredEdges())
        targets: list[str] = []
        try:
            for start in range(0, _PATHS + _READ, _BATCH):
                numbers = range(start, min(start + _BATCH, _PATHS + _READ))
                targets += await _write_some(references, numbers)
        finally:
            await engine.aclose()
    return targets


async def _write_some(references: References, numbers: range) -> list[str]:
    chunks, directories, infos = [], [], []
    for number in numbers:
        contents = [halving_bytes(f"{number} {each}", _BYTES) for each in range(_FILES)]
        stored = [encode_chunk(data, compress=True) for data in contents]
        chunks += [one.inline_row() for one in stored]
        directory = Directory.of(
            (b"file-%d" % each, FileNode(Digest(one.digest), one.size))
            for each, one in enumerate(stored)
        )
        directories.append(directory)
        infos.append(_info(number, _nar(contents) if number >= _PATHS else b"", directory))
    await references.put_chunks(chunks)
    await references.put_directories(
        [(each.digest.raw, each.wire) for each in directories], list(map(keys_in, directories))
    )
    now = int(time.time())
    await asyncio.gather(
        *(
            references.put_root(
                "pathinfos",
                info.store_path.hash,
                encode_record(info),
                info.node,
                [("access", (info.store_path.hash, _read_at(number, now).to_bytes(8, "big")))],
            )
            for number, info in zip(numbers, infos, strict=True)
        )
    )
    return [
        target
        for number, info in zip(numbers, infos, strict=True)
        if number >= _PATHS
        for target in (f"/{info.store_path.digits}.narinfo", f"/{nar_url(info)}")
    ]


def _nar(contents: list[bytes]) -> bytes:
    """Of paths that are going to be read; nobody looks at that of others."""
    tree: Tree = {b"file-%d" % each: File(data) for each, data in enumerate(contents)}
    return nar_of(tree)


def _read_at(number: int, now: int) -> int:
    return now - _AGE if number < _PATHS else now


def _info(number: int, nar: bytes, directory: Directory) -> PathInfo:
    name = f"evicted-{number}"
    return PathInfo(
        store_path=StorePath(hashlib.sha256(name.encode()).digest()[:20], name),
        nar_sha256=hashlib.sha256(nar).digest(),
        nar_size=len(nar),
        references=(),
        node=DirectoryNode(directory.digest, directory.size),
    )
