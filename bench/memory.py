"""Memory of the daemon (RssAnon, the most that was seen) while much goes through it."""

from __future__ import annotations

import asyncio
import hashlib
import lzma
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.caches import (
    KEY,
    GiB,
    MiB,
    digits_of,
    halving_bytes,
    write_cache,
    write_generated,
)
from bench.harness import Row, Server, daemon, load, nar_target, upstream, workspace
from tests.support.caches import MadePath, signed
from tvixstore.nar import writer
from tvixstore.nix import NarInfo, StorePath, nixbase32

_INTERVAL = 0.05
# Seconds that a load may take on a machine that is busy.
_PATIENCE = 300.0
_PATHS, _BLOCKS = 16, 4


@dataclass(slots=True)
class _Peak:
    """In megabytes."""

    most: float = 0.0


async def measure() -> list[Row]:
    return [*await _one_large(), *await _many_compressed()]


async def _one_large() -> list[Row]:
    async with workspace() as folder:
        cache = write_cache(folder / "cache", [])
        path = write_generated(cache, "four-gigabytes", 4 * GiB)
        async with upstream(cache) as source, daemon(folder / "daemon", source) as proxy:
            async with _watched(proxy) as cold:
                await load(proxy, "paths", [path.digits], seconds=_PATIENCE)
                await _settled(proxy, path.digits)
            target = await nar_target(proxy, path.digits)
            async with _watched(proxy) as warm:
                await load(proxy, "each", [target], seconds=_PATIENCE)
    return [
        _row("streaming 4 GiB, cold, until it is in the store", cold, 200),
        _row("streaming 4 GiB, warm", warm, 200),
    ]


async def _many_compressed() -> list[Row]:
    async with workspace() as folder:
        cache = write_cache(folder / "cache", [])
        paths = _compressed_paths(cache)
        async with upstream(cache) as source, daemon(folder / "daemon", source) as proxy:
            async with _watched(proxy) as peak:
                await load(proxy, "paths", digits_of(paths), connections=_PATHS, seconds=_PATIENCE)
                for path in paths:
                    await _settled(proxy, path.digits)
    return [_row("16 xz NARs of 64 MiB at once, until they are in the store", peak, 600)]


def _row(work: str, peak: _Peak, limit: float) -> Row:
    return Row(
        f"memory, {work}",
        f"RssAnon ≤ {limit:.0f} MB",
        f"{peak.most:.0f} MB",
        peak.most <= limit,
        {"RssAnon, MB": [peak.most]},
    )


def _compressed_paths(folder: Path) -> list[MadePath]:
    """One block compressed, as xz takes a second for 5 MB, and files with a beginning each."""
    block = halving_bytes("block", 16 * MiB)
    packed = lzma.compress(block, preset=6)
    size = 32 + _BLOCKS * len(block)
    paths = []
    for number in range(_PATHS):
        name = f"compressed-{number}"
        first = hashlib.sha256(name.encode()).digest()
        head = writer.open_regular(b"", size) + first
        tail = writer.close_regular(b"", size)
        file = lzma.compress(head) + packed * _BLOCKS + lzma.compress(tail)
        hashed = hashlib.sha256(head)
        for _ in range(_BLOCKS):
            hashed.update(block)
        hashed.update(tail)
        url = f"nar/{nixbase32.encode(hashlib.sha256(file).digest())}.nar.xz"
        narinfo = NarInfo(
            store_path=StorePath(first[:20], name),
            url=url,
            compression="xz",
            nar_sha256=hashed.digest(),
            nar_size=len(head) + _BLOCKS * len(block) + len(tail),
            references=(),
        )
        path = MadePath(signed(replace(narinfo, file_size=len(file)), KEY), b"")
        (folder / url).write_bytes(file)
        (folder / f"{path.digits}.narinfo").write_bytes(path.text)
        paths.append(path)
    return paths


async def _settled(proxy: Server, digits: str) -> None:
    """Returns once the path is in the store: its NAR is then served by its castore node."""
    while "castore" not in await nar_target(proxy, digits):  # noqa: ASYNC110 (another process)
        await asyncio.sleep(_INTERVAL)


@asynccontextmanager
async def _watched(proxy: Server) -> AsyncIterator[_Peak]:
    peak = _Peak()
    watching = asyncio.create_task(_watch(proxy.pid, peak))
    try:
        yield peak
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(pid: int, peak: _Peak) -> None:
    while True:
        peak.most = max(peak.most, _anonymous(pid))
        await asyncio.sleep(_INTERVAL)


def _anonymous(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024 / 1e6
