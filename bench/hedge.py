"""Hedging: two mirrors, each of which takes a second for one narinfo in a hundred."""

from __future__ import annotations

from bench.caches import small_paths, write_cache
from bench.fakes import Fake
from bench.harness import (
    RTT,
    Row,
    fakes,
    load,
    median,
    percentile,
    requests_at,
    workspace,
)
from bench.upstreams import in_turn, milliseconds, over

_PATHS, _LEARNING, _ROUNDS = 1000, 200, 10
_SLOW, _EVERY = 1.0, 100


async def measure() -> list[Row]:
    paths = small_paths(_LEARNING + _PATHS)
    targets = [path.narinfo_target for path in paths]
    async with workspace() as folder:
        cache = str(write_cache(folder / "cache", paths))
        mirror = Fake(cache, RTT, _SLOW, _EVERY)
        # The last is one of its own for whoever does not hedge.
        async with fakes(mirror, mirror, mirror) as (one, other, alone):
            async with (
                over(folder / "hedged", [one.url, other.url], settings={"hedge": "p95"}) as hedged,
                over(folder / "alone", [alone.url]) as single,
            ):
                for daemon in (hedged, single):
                    await load(daemon, "each", targets[:_LEARNING])
                before = await requests_at(one) + await requests_at(other)
                quick, late = await in_turn([hedged, single], targets[_LEARNING:], _ROUNDS)
                asked = await requests_at(one) + await requests_at(other) - before
    cut = percentile(late, 0.99) / percentile(quick, 0.99)
    more = asked / _PATHS - 1
    return [
        Row(
            'hedge = "p95" over two mirrors that take 1 s for 1 % of narinfos, 20 ms for others',
            "p99 cut by 5 × for ≤ 5 % more requests",
            f"cut by {cut:.1f} × (from {percentile(late, 0.99) * 1e3:,.0f} to "
            f"{percentile(quick, 0.99) * 1e3:.0f} ms) for {more * 100:.1f} % more; median "
            f"{median(quick) * 1e3:.1f} ms, and {median(late) * 1e3:.1f} without",
            cut >= 5 and more <= 0.05,
            {
                "ms, hedged": milliseconds(quick),
                "ms, one alone": milliseconds(late),
                "requests at the mirrors": [float(asked)],
            },
        )
    ]
