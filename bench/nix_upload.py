"""A real `nix copy --to`: into a daemon with an empty state, and into a `file://` cache.

What Nix does itself (reading, hashing, compressing) is the same in both; a `file://` cache then
only writes files, and syncs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from bench.caches import (
    KEY,
    PUBLIC_KEY,
    KiB,
    MiB,
    halving_bytes,
    small_files,
    small_paths,
    write_cache,
)
from bench.harness import RUNS, Row, Server, cpu_seconds, median, ratio, running, workspace
from tests.nar.trees import File
from tests.support.caches import MadePath, make_path
from tests.support.daemon import Daemon
from tests.support.nix_client import NixClient, environment, run

_AIM = 1.3


async def measure() -> list[Row]:
    async with workspace() as folder:
        # Nix's xz makes some 2 MB a second, so it gets less to do.
        little, mixed, small = _mixed("little", 4), _mixed("mixed", 40), small_paths(200)
        source = NixClient(folder / "source", PUBLIC_KEY)
        cache = write_cache(folder / "cache", [*little, *mixed, *small])
        tops = [paths[-1].store_path for paths in (little, mixed, small)]
        await source.copy(f"file://{cache}", *tops)
        return [
            await _pairs(folder / "xz", source, little, "xz"),
            await _pairs(folder / "zstd", source, mixed, "zstd"),
            await _pairs(folder / "none", source, mixed, "none"),
            await _pairs(folder / "small", source, small, "xz"),
        ]


def _mixed(name: str, megabytes: int) -> list[MadePath]:
    """One large file, small ones of a tenth of its size, and little paths."""
    paths = [
        make_path(f"{name}-large", KEY, File(halving_bytes(name, megabytes * MiB))),
        make_path(f"{name}-files", KEY, small_files(name, 20 * megabytes, 2 * KiB, 8 * KiB)),
    ]
    paths += [make_path(f"{name}-{number}", KEY, size=3000) for number in range(20)]
    references = [path.narinfo.store_path for path in paths]
    return [*paths, make_path(f"{name}-top", KEY, size=1000, references=references)]


async def _pairs(
    folder: Path, source: NixClient, paths: Sequence[MadePath], compression: str
) -> Row:
    pushed: list[float] = []
    written: list[float] = []
    costs: list[float] = []
    top = paths[-1].store_path
    for number in range(RUNS):
        place = folder / str(number)
        target = f"file://{place}/cache?compression={compression}"
        written.append(await _copy(place / "writer", source, target, top))
        async with running(Daemon(place / "daemon")) as daemon:
            before = cpu_seconds(daemon.pid)
            pushed.append(await _push(place / "pusher", source, daemon, compression, top))
            costs.append(cpu_seconds(daemon.pid) - before)
    took = ratio(pushed, written)
    size = sum(len(path.nar) for path in paths) / 1e6
    return Row(
        f"nix copy --to of {len(paths)} paths, {size:.0f} MB, as {compression}",
        f"≤ {_AIM} × the time into a file:// cache",
        f"{took:.2f} × ({median(pushed):.2f} s)",
        took <= _AIM,
        {
            "seconds into the daemon": pushed,
            "seconds into a file:// cache": written,
            "CPU seconds of the daemon": costs,
        },
    )


async def _push(
    folder: Path, source: NixClient, daemon: Server, compression: str, path: str
) -> float:
    return await _copy(folder, source, f"{daemon.url}?compression={compression}", path)


async def _copy(folder: Path, source: NixClient, target: str, path: str) -> float:
    began = perf_counter()
    command = ("nix", "copy", "--store", str(source.store), "--to", target, path)
    finished = await run(*command, env=environment(folder))
    took = perf_counter() - began
    if finished.code:
        raise SystemExit(finished.output)
    return took
