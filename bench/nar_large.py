"""NARs of large files, warm: one stream, and four at a time."""

from __future__ import annotations

from collections.abc import Callable

from bench.caches import KEY, MiB, halving_bytes, random_bytes, write_cache
from bench.harness import (
    RUNS,
    Row,
    load,
    median,
    nar_target,
    ratio,
    server,
    warm_daemon,
    workspace,
)
from tests.nar.trees import File, Tree
from tests.support.caches import make_path

_FILES, _SIZE = 4, 64 * MiB


async def measure() -> list[Row]:
    return [
        await _measure("that do not compress", random_bytes, 1),
        await _measure("that do not compress, 4 at a time", random_bytes, 4),
        await _measure("that compress to half", halving_bytes, 1),
    ]


async def _measure(what: str, content: Callable[[str, int], bytes], streams: int) -> Row:
    tree: Tree = {
        b"file-%d" % number: File(content(f"{number}", _SIZE)) for number in range(_FILES)
    }
    path = make_path("large-files", KEY, tree)
    rates: list[float] = []
    costs: list[float] = []
    ceiling_rates: list[float] = []
    ceiling_costs: list[float] = []
    async with workspace() as folder:
        cache = write_cache(folder / "cache", [path])
        async with (
            warm_daemon(folder / "daemon", cache, [path.digits]) as daemon,
            server("stream", str(len(path.nar))) as ceiling,
        ):
            target = await nar_target(daemon, path.digits)
            # Once uncounted: from then on the system has the files in its cache.
            await load(daemon, "each", [target])
            for _ in range(RUNS):
                for each, rate, cost in (
                    (daemon, rates, costs),
                    (ceiling, ceiling_rates, ceiling_costs),
                ):
                    done = await load(each, "each", [target] * 4, connections=streams)
                    rate.append(done.megabytes_per_second)
                    cost.append(done.cpu / done.outcome.received * 1e9)
    reached = ratio(rates, ceiling_rates)
    return Row(
        f"NAR of large files {what}, warm",
        "≥ 0.3 × aiohttp streaming from memory, and ≥ 700 MB/s",
        f"{reached:.2f} × and {median(rates):,.0f} MB/s",
        reached >= 0.3 and median(rates) >= 700,
        {
            "MB/s": rates,
            "CPU ms/MB": costs,
            "ceiling MB/s": ceiling_rates,
            "ceiling CPU ms/MB": ceiling_costs,
        },
    )
