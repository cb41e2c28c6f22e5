"""A race of three, one black-holed and one slow, against the fast one alone."""

from __future__ import annotations

from bench.caches import small_paths, write_cache
from bench.fakes import Fake
from bench.harness import RTT, Row, fakes, median, percentile, workspace
from bench.unreachable import black_hole
from bench.upstreams import in_turn, milliseconds, over

_PATHS, _ROUNDS = 1000, 10
_SLOW = 0.2


async def measure() -> list[Row]:
    paths = small_paths(_PATHS)
    targets = [path.narinfo_target for path in paths]
    async with workspace() as folder:
        cache = str(write_cache(folder / "cache", paths))
        with black_hole() as hole:
            async with fakes(Fake(cache, RTT), Fake(cache, _SLOW)) as (fast, slow):
                async with (
                    over(folder / "three", [hole, slow.url, fast.url]) as three,
                    over(folder / "alone", [fast.url]) as alone,
                ):
                    raced, single = await in_turn([three, alone], targets, _ROUNDS)
    middle = median(raced) / median(single)
    late = percentile(raced, 0.99) / percentile(single, 0.99)
    return [
        Row(
            "race of three, one black-holed, one at 200 ms, one at 20 ms: narinfos",
            "median ≤ 1.1 ×, p99 ≤ 1.5 × the fast one alone",
            f"{middle:.2f} × ({median(raced) * 1e3:.1f} ms), p99 {late:.2f} × "
            f"({percentile(raced, 0.99) * 1e3:.1f} ms)",
            middle <= 1.1 and late <= 1.5,
            {
                "ms, race of three": milliseconds(raced),
                "ms, the fast one alone": milliseconds(single),
            },
        )
    ]
