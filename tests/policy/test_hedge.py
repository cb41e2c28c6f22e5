from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.policy.hedge import Budget, Hedging
from tvixstore.policy.race import Member, race


class Asked:
    """Answers `says` after what `takes` gives; `None` takes for ever. Notes when it was asked."""

    def __init__(self, takes: Callable[[], float | None], says: str | None = "here") -> None:
        self.takes = takes
        self.says = says
        self.at: list[float] = []

    async def __call__(self) -> str | None:
        self.at.append(now())
        seconds = self.takes()
        if seconds is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(seconds)
        if self.says == "down":
            raise Unavailable("down")
        return self.says


def always(seconds: float | None) -> Callable[[], float | None]:
    return lambda: seconds


async def run(hedging: Hedging, *members: Asked) -> str | None:
    answer = await race(
        [Member(str(number), member.__call__) for number, member in enumerate(members)], hedging
    )
    return None if answer is None else answer[1]


@virtual_clock
async def test_the_delay_is_what_nearly_all_answers_take() -> None:
    first, second = Asked(always(0.2)), Asked(always(1.0))
    hedging = Hedging("p95")
    # One look at each, as nothing is known of them.
    for _ in range(50):
        await run(hedging, first, second)
    assert hedging.after("0") == pytest.approx(0.2, rel=0.26)
    first.takes, asked = always(None), len(second.at)
    begun = now()
    assert await run(hedging, first, second) == "here"
    assert second.at[asked] - begun == pytest.approx(0.2, rel=0.26)


@virtual_clock
async def test_a_hedge_spares_the_slow_tail_and_stays_within_the_budget() -> None:
    random = Random(7)
    rare = Asked(lambda: 10.0 if random.random() < 0.01 else 0.02)
    other = Asked(always(0.03))
    hedging = Hedging("p95", Budget(0.1))
    times = []
    for _ in range(2000):
        begun = now()
        await run(hedging, rare, other)
        times.append(now() - begun)
    assert sorted(times)[1980] < 1.0
    # One in a hundred needed it; p95 asks somewhat more often, and the budget allows a tenth.
    assert 10 <= hedging.hedges <= 2000 * 0.1 + 10


@virtual_clock
async def test_of_members_that_are_slow_all_at_once_a_tenth_is_hedged() -> None:
    first, second = Asked(always(1.0)), Asked(always(1.0))
    hedging = Hedging(0.01, Budget(share=0.1, most=10.0))
    for _ in range(500):
        await run(hedging, first, second)
    assert len(first.at) + len(second.at) == 500 + hedging.hedges
    assert 50 <= hedging.hedges <= 500 * 0.1 + 10


@virtual_clock
async def test_asking_the_next_one_where_one_has_nothing_or_fails_costs_no_budget() -> None:
    empty, down, full = Asked(always(0.1), None), Asked(always(0.1), "down"), Asked(always(0.1))
    hedging = Hedging(5.0, Budget(share=0.0, most=0.0))
    for _ in range(20):
        assert await run(hedging, empty, down, full) == "here"
    assert hedging.hedges == 0


@virtual_clock
async def test_without_budget_a_race_waits_until_a_hedge_was_earned() -> None:
    hung, other = Asked(always(None)), Asked(always(0.1))
    budget = Budget(share=0.1, most=1.0)
    hedging = Hedging(0.05, budget)
    assert budget.spend()
    waiting = asyncio.create_task(run(hedging, hung, other))
    await asyncio.sleep(10.0)
    assert not other.at
    for _ in range(10):
        budget.earn()
    assert await waiting == "here"


@virtual_clock
async def test_with_a_delay_the_fastest_known_is_asked_first() -> None:
    slow, fast = Asked(always(0.5)), Asked(always(0.1))
    hedging = Hedging(2.0)
    for _ in range(10):
        await run(hedging, slow, fast)
    # Each was looked at once, and then the fast one was asked alone.
    assert (len(slow.at), len(fast.at)) == (1, 9)
    fast.takes = always(1.0)
    for _ in range(40):
        await run(hedging, slow, fast)
    assert len(slow.at) > 20


@virtual_clock
async def test_who_was_set_back_comes_last_however_fast() -> None:
    fast, slow = Asked(always(0.1)), Asked(always(0.5))
    hedging = Hedging(2.0)
    for _ in range(4):
        await run(hedging, fast, slow)
    assert hedging.order(["0", "1"]) == [0, 1]
    assert hedging.order(["0", "1"], set_back=[0]) == [1, 0]


@virtual_clock
async def test_one_that_fails_fast_is_not_taken_for_fast() -> None:
    down, slow = Asked(always(0.001), "down"), Asked(always(0.2))
    hedging = Hedging(2.0)
    for _ in range(10):
        await run(hedging, down, slow)
    assert hedging.of("0").quantile(0.5) is not None
    assert len(slow.at) == 10


@virtual_clock
async def test_all_at_once_costs_no_budget_and_keeps_the_order() -> None:
    first, second = Asked(always(0.5)), Asked(always(0.1))
    hedging = Hedging(0.0, Budget(0.0, 0.0))
    for _ in range(5):
        assert await run(hedging, first, second) == "here"
    assert len(first.at) == len(second.at) == 5
    assert hedging.hedges == 0
