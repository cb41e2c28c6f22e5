"""A NAR of 2,000 small files, warm, over and over on one connection."""

from __future__ import annotations

from bench.caches import KEY, KiB, small_files, write_cache
from bench.harness import RUNS, Row, load, median, nar_target, warm_daemon, workspace
from tests.support.caches import make_path

_FILES, _SECONDS = 2000, 2.0


async def measure() -> list[Row]:
    sizes, rates, speeds, costs = "2–8 KB", *await _samples(2 * KiB, 8 * KiB)
    small = Row(
        f"NAR of 2,000 files of {sizes}, warm",
        "≥ 40,000 files/s",
        f"{median(rates):,.0f} files/s ({median(speeds):,.0f} MB/s)",
        median(rates) >= 40_000,
        {"files/s": rates, "MB/s": speeds, "CPU µs/file": costs},
    )
    rates, speeds, costs = await _samples(30 * KiB, 30 * KiB)
    larger = Row(
        "NAR of 2,000 files of 30 KB, warm",
        "≥ 400 MB/s",
        f"{median(speeds):,.0f} MB/s ({median(rates):,.0f} files/s)",
        median(speeds) >= 400,
        {"files/s": rates, "MB/s": speeds, "CPU µs/file": costs},
    )
    return [small, larger]


async def _samples(low: int, high: int) -> tuple[list[float], list[float], list[float]]:
    """Files a second, megabytes a second, and microseconds of CPU a file."""
    path = make_path(f"small-files-{low}", KEY, small_files("files", _FILES, low, high))
    rates: list[float] = []
    speeds: list[float] = []
    costs: list[float] = []
    async with workspace() as folder:
        cache = write_cache(folder / "cache", [path])
        async with warm_daemon(folder / "daemon", cache, [path.digits]) as daemon:
            target = await nar_target(daemon, path.digits)
            await load(daemon, "each", [target])
            for _ in range(RUNS):
                done = await load(daemon, "hammer", [target], seconds=_SECONDS)
                files = done.outcome.requests * _FILES
                rates.append(files / done.outcome.seconds)
                speeds.append(done.megabytes_per_second)
                costs.append(done.cpu / files * 1e6)
    return rates, speeds, costs
