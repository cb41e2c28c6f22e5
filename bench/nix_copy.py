"""A real `nix copy`, cold: straight from the upstream, and through a daemon with an empty state.

And what it waits for: the first byte of a NAR that nobody has asked for before.
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
    random_bytes,
    small_files,
    write_cache,
)
from bench.harness import (
    GIGABIT,
    RTT,
    RUNS,
    Row,
    Server,
    cpu_seconds,
    daemon,
    load,
    median,
    ratio,
    upstream,
    workspace,
)
from tests.nar.trees import File
from tests.support.caches import MadePath, make_path
from tests.support.nix_client import NixClient

_WAITS = 15


async def measure() -> list[Row]:
    paths = _closure()
    async with workspace() as folder:
        cache = write_cache(folder / "cache", paths)
        return [
            await _copies(folder, cache, paths, "at 1 Gbit/s and 20 ms", GIGABIT, RTT),
            await _copies(folder, cache, paths, "on bare loopback", 0, 0),
        ] + await first_bytes()


def _closure() -> list[MadePath]:
    """Some 220 MB: a large file, several middling ones, many small ones, and little paths."""
    paths = [
        make_path("one-large-file", KEY, File(halving_bytes("one", 96 * MiB))),
        make_path(
            "middling-files",
            KEY,
            {b"%d" % number: File(random_bytes(f"{number}", 4 * MiB)) for number in range(24)},
        ),
        make_path("small-files", KEY, small_files("copied", 2000, 2 * KiB, 8 * KiB)),
    ]
    paths += [make_path(f"little-{number}", KEY, size=3000) for number in range(40)]
    references = [path.narinfo.store_path for path in paths]
    paths.append(make_path("top", KEY, size=1000, references=references))
    return paths


async def _copies(
    folder: Path, cache: Path, paths: Sequence[MadePath], where: str, rate: float, rtt: float
) -> Row:
    through: list[float] = []
    straight: list[float] = []
    costs: list[float] = []
    size = sum(len(path.nar) for path in paths)
    async with upstream(cache, rate, rtt) as source:
        for number in range(RUNS):
            place = folder / f"{where} {number}".replace(" ", "-").replace("/", "-")
            async with daemon(place / "daemon", source) as proxy:
                before = cpu_seconds(proxy.pid)
                through.append(await _copy(place / "through", proxy, paths[-1]))
                costs.append(cpu_seconds(proxy.pid) - before)
            straight.append(await _copy(place / "straight", source, paths[-1]))
    samples = {
        "seconds through the proxy": through,
        "seconds straight": straight,
        "CPU seconds of the daemon": costs,
    }
    took = ratio(through, straight)
    speeds = [size / seconds / 1e6 for seconds in through]
    measured = f"{took:.2f} × ({median(speeds):.0f} MB/s)"
    if rate:
        aim, met = "≤ 1.15 × the time straight from upstream", took <= 1.15
    else:
        aim, met = "as MB/s", True
        measured = f"{median(speeds):.0f} MB/s ({took:.2f} × the time straight from upstream)"
    return Row(f"nix copy of {size / 1e6:.0f} MB, cold, {where}", aim, measured, met, samples)


async def _copy(folder: Path, source: Server, path: MadePath) -> float:
    client = NixClient(folder, PUBLIC_KEY)
    began = perf_counter()
    await client.copy(source.url, path.store_path)
    return perf_counter() - began


async def first_bytes() -> list[Row]:
    return [
        await _first_byte("20 MB", 20 * MiB),
        await _first_byte("500 KB", 500 * KiB),
    ]


async def _first_byte(what: str, size: int) -> Row:
    paths = [make_path(f"first-byte-{number}-{size}", KEY, size=size) for number in range(_WAITS)]
    digits = [path.digits for path in paths]
    async with workspace() as folder:
        cache = write_cache(folder / "cache", paths)
        async with (
            upstream(cache, GIGABIT, RTT) as source,
            daemon(folder / "daemon", source) as proxy,
        ):
            straight = (await load(source, "paths", digits)).outcome.waits
            through = (await load(proxy, "paths", digits)).outcome.waits
    # The very first one connects.
    later = (median(through[1:]) - median(straight[1:])) * 1e3
    return Row(
        f"first byte of a NAR of {what}, cold, at 1 Gbit/s and 20 ms",
        "≤ 10 ms later than straight from upstream",
        f"{later:.1f} ms later",
        later <= 10,
        {
            "ms through the proxy": [wait * 1e3 for wait in through],
            "ms straight": [wait * 1e3 for wait in straight],
        },
    )
