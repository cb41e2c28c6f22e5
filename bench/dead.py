"""One good substituter in a class with 20 that are down, against the good one alone.

Half of the dead refuse connections, and half say nothing. Narinfos that the good one has; and some
that it does not have, where the others are optional, as a lookup would fail otherwise.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.caches import small_paths, write_cache
from bench.fakes import Fake
from bench.harness import RTT, Row, Server, fakes, load, median, percentile, workspace
from bench.unreachable import black_hole, refusing
from bench.upstreams import absent_targets, in_turn, milliseconds, over

_PATHS, _ROUNDS = 400, 8
_DEAD = 20
# The default of a substituter, in seconds.
_CONNECT_TIMEOUT = 2.0
# Less than the default, so that probes of the dead fall into the time that is measured.
_BREAKER_OPEN = "2s"


async def measure() -> list[Row]:
    paths = small_paths(_PATHS)
    present = [path.narinfo_target for path in paths]
    with ExitStack() as held:
        dead = [
            held.enter_context(refusing() if number % 2 else black_hole())
            for number in range(_DEAD)
        ]
        async with workspace() as folder:
            cache = str(write_cache(folder / "cache", paths))
            async with fakes(Fake(cache, RTT)) as (good,):
                return [
                    await _row(folder / "present", "present", present, 200, good, dead, False),
                    await _row(
                        folder / "absent", "absent", absent_targets(_PATHS), 404, good, dead, True
                    ),
                ]


async def _row(
    folder: Path,
    what: str,
    targets: list[str],
    status: int,
    good: Server,
    dead: list[str],
    optional: bool,
) -> Row:
    async with (
        # The good one last: nobody is asked sooner for standing first.
        over(
            folder / "all", [*dead, good.url], optional=optional, breaker_open=_BREAKER_OPEN
        ) as all_of_them,
        over(folder / "good", [good.url]) as alone,
    ):
        both = (all_of_them, alone)
        firsts = [(await load(each, "each", targets[:1], status=status)) for each in both]
        through, single = await in_turn(both, targets[1:], _ROUNDS, status)
    first, first_alone = (done.outcome.waits[0] for done in firsts)
    later = (median(through) - median(single)) * 1e3
    late = (percentile(through, 0.99) - percentile(single, 0.99)) * 1e3
    return Row(
        f"one good and {_DEAD} dead substituters in a class: {what} narinfos",
        "the first ≤ the connect timeout (2 s) more than without, from the second on ≤ 5 ms more",
        f"{(first - first_alone) * 1e3:.0f} ms more, then {later:.1f} ms more "
        f"(p99 {late:.1f} ms more; the longest {max(through) * 1e3:.0f} ms)",
        round(first - first_alone, 2) <= _CONNECT_TIMEOUT and later <= 5,
        {
            "ms, the first": milliseconds([first]),
            "ms, the first without": milliseconds([first_alone]),
            "ms, from the second on": milliseconds(through),
            "ms, from the second on without": milliseconds(single),
        },
    )
