"""2,000 small paths, cold, at 20 ms: narinfo and NAR of each, over 32 connections."""

from __future__ import annotations

from bench.caches import digits_of, small_paths, write_cache
from bench.harness import (
    GIGABIT,
    RTT,
    RUNS,
    Row,
    daemon,
    load,
    median,
    ratio,
    upstream,
    workspace,
)

_PATHS, _CONNECTIONS = 2000, 32


async def measure() -> list[Row]:
    paths = small_paths(_PATHS)
    digits = digits_of(paths)
    through: list[float] = []
    straight: list[float] = []
    costs: list[float] = []
    async with workspace() as folder:
        cache = write_cache(folder / "cache", paths)
        async with upstream(cache, GIGABIT, RTT) as source:
            for number in range(RUNS):
                async with daemon(folder / f"daemon-{number}", source) as proxy:
                    done = await load(proxy, "paths", digits, connections=_CONNECTIONS)
                through.append(done.outcome.seconds)
                costs.append(done.cpu / _PATHS * 1e6)
                done = await load(source, "paths", digits, connections=_CONNECTIONS)
                straight.append(done.outcome.seconds)
    took = ratio(through, straight)
    return [
        Row(
            "2,000 small paths, cold, at 20 ms",
            "≤ 1.3 × the time straight from upstream, over as many connections",
            f"{took:.2f} × ({median(through):.2f} s; {median(costs):,.0f} µs of CPU a path)",
            took <= 1.3,
            {
                "seconds through the proxy": through,
                "seconds straight": straight,
                "CPU µs/path of the daemon": costs,
            },
        )
    ]
