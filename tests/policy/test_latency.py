from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_clock import run, virtual_clock
from tvixstore.policy.latency import Latencies

# A bucket's upper bound is at most so much above what fell into it.
COARSE = 1.26


@virtual_clock
async def test_of_nobody_asked_nothing_is_known() -> None:
    assert Latencies().quantile(0.95) is None
    assert Latencies().weight == 0


@given(st.lists(st.floats(0.001, 60.0), min_size=1, max_size=200), st.floats(0.05, 0.99))
def test_a_quantile_of_answers_is_the_one_that_sorting_gives(
    times: list[float], share: float
) -> None:
    async def estimate() -> float | None:
        known = Latencies()
        for seconds in times:
            known.answered(seconds)
        return known.quantile(share)

    estimated = run(estimate())
    exact = sorted(times)[min(len(times) - 1, max(0, -(-int(share * len(times) * 1e6) // 10**6)))]
    below = sorted(times)[max(0, int(share * len(times)) - 1)]
    assert estimated is not None and below / COARSE <= estimated <= exact * COARSE


@virtual_clock
async def test_those_who_were_given_up_count_as_longer_than_that() -> None:
    """Half of the answers take 10 s, and nobody waits for more than 1 s."""
    naive, censored = Latencies(), Latencies()
    random = Random(1)
    for _ in range(200):
        if random.random() < 0.5:
            naive.answered(0.1)
            censored.answered(0.1)
        else:
            censored.gave_up(1.0)
    told, learned = naive.quantile(0.95), censored.quantile(0.95)
    assert told is not None and told < 0.13
    # It cannot know that it is 10 s, but that it is no less than 1 s.
    assert learned is not None and 1.0 / COARSE <= learned <= 1.0 * COARSE


@virtual_clock
async def test_giving_up_early_says_nothing_of_later() -> None:
    known = Latencies()
    for _ in range(100):
        known.gave_up(0.01)
        known.answered(0.5)
    learned = known.quantile(0.5)
    assert learned == pytest.approx(0.5, rel=0.26)


@virtual_clock
async def test_what_is_old_is_forgotten() -> None:
    known = Latencies(half_life=60.0)
    for _ in range(100):
        known.answered(5.0)
    await asyncio.sleep(600.0)
    assert known.weight == pytest.approx(100 / 1024, rel=0.01)
    assert known.quantile(0.95) is None
    for _ in range(10):
        known.answered(0.1)
    learned = known.quantile(0.95)
    assert learned is not None and learned < 0.13
