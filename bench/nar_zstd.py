"""NARs compressed as they go out, warm: against zstd alone, one stream and four at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import zstandard

from bench.caches import KEY, MiB, halving_bytes, write_cache
from bench.harness import (
    RUNS,
    Row,
    Server,
    cpu_seconds,
    load,
    median,
    nar_target,
    ratio,
    warm_daemon,
    workspace,
)
from tests.nar.trees import File, Tree
from tests.support.caches import make_path

_FILES, _SIZE = 4, 16 * MiB
_PIECE = 256 << 10


async def measure() -> list[Row]:
    tree: Tree = {b"file-%d" % n: File(halving_bytes(f"{n}", _SIZE)) for n in range(_FILES)}
    path = make_path("compressed", KEY, tree)
    async with workspace() as folder:
        cache = write_cache(folder / "cache", [path])
        async with warm_daemon(folder / "daemon", cache, [path.digits]) as daemon:
            target = await nar_target(daemon, path.digits)
            # Once uncounted: from then on the system has the files in its cache.
            await load(daemon, "each", [target])
            return [await _measure(daemon, target, path.nar, streams) for streams in (1, 4)]


async def _measure(daemon: Server, target: str, nar: bytes, streams: int) -> Row:
    rates: list[float] = []
    costs: list[float] = []
    ceiling: list[float] = []
    for _ in range(RUNS):
        began, before = perf_counter(), cpu_seconds(daemon.pid)
        sizes = await asyncio.gather(*(_fetch(daemon.port, target) for _ in range(streams)))
        assert max(sizes) < len(nar), "it came uncompressed"
        served = streams * len(nar)
        rates.append(served / (perf_counter() - began) / 1e6)
        costs.append((cpu_seconds(daemon.pid) - before) / served * 1e9)
        ceiling.append(await asyncio.to_thread(_zstd_alone, nar))
    reached = ratio(rates, ceiling)
    what = "one" if streams == 1 else f"{streams} at a time"
    return Row(
        f"NAR of files that compress to half, sent as zstd, warm, {what}",
        "≥ 0.5 × zstd level 1 on one processor",
        f"{reached:.2f} × and {median(rates):,.0f} MB/s of NAR",
        reached >= 0.5,
        {"MB/s": rates, "CPU ms/MB": costs, "ceiling MB/s": ceiling},
    )


def _zstd_alone(nar: bytes) -> float:
    """MB/s of one thread that does nothing else."""
    began = perf_counter()
    encoder = zstandard.ZstdCompressor(level=1).compressobj(size=len(nar))
    for start in range(0, len(nar), _PIECE):
        encoder.compress(nar[start : start + _PIECE])
    encoder.flush()
    return len(nar) / (perf_counter() - began) / 1e6


async def _fetch(port: int, target: str) -> int:
    """Bytes that came up to the end of the connection, with head and chunks."""
    received = 0
    async with _connection(port, target) as reader:
        while data := await reader.read(1 << 20):
            received += len(data)
    return received


@asynccontextmanager
async def _connection(port: int, target: str) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 21)
    try:
        lines = (f"GET {target} HTTP/1.1", "Host: bench", "Accept-Encoding: zstd")
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()
