"""narinfo, warm: 1,000 paths in the store, asked for over 32 connections."""

from __future__ import annotations

from bench.caches import digits_of, small_paths, write_cache
from bench.harness import RUNS, Row, load, median, ratio, server, warm_daemon, workspace

_PATHS, _CONNECTIONS, _SECONDS = 1000, 32, 2.0


async def measure() -> list[Row]:
    rates: list[float] = []
    costs: list[float] = []
    ceiling_rates: list[float] = []
    ceiling_costs: list[float] = []
    paths = small_paths(_PATHS)
    async with workspace() as folder:
        cache = write_cache(folder / "cache", paths)
        targets = [path.narinfo_target for path in paths]
        async with (
            warm_daemon(folder / "daemon", cache, digits_of(paths)) as daemon,
            server("constant", paths[-1].text.decode()) as ceiling,
        ):
            for _ in range(RUNS):
                for target, rate, cost in (
                    (daemon, rates, costs),
                    (ceiling, ceiling_rates, ceiling_costs),
                ):
                    done = await load(
                        target, "hammer", targets, connections=_CONNECTIONS, seconds=_SECONDS
                    )
                    rate.append(done.requests_per_second)
                    cost.append(done.cpu / done.outcome.requests * 1e6)
    reached = ratio(rates, ceiling_rates)
    return [
        Row(
            "narinfo, warm",
            "≥ 0.6 × a constant aiohttp handler",
            f"{reached:.2f} × ({median(rates):,.0f}/s; by CPU {ratio(ceiling_costs, costs):.2f} ×)",
            reached >= 0.6,
            {
                "requests/s": rates,
                "CPU µs/request": costs,
                "ceiling requests/s": ceiling_rates,
                "ceiling CPU µs/request": ceiling_costs,
            },
        )
    ]
