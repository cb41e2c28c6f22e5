from __future__ import annotations

import asyncio

from tests.support.virtual_clock import virtual_clock
from tvixstore.policy.deadline import bounded, remaining, within


@virtual_clock
async def test_nobody_set_a_deadline() -> None:
    assert remaining() is None
    assert within(7.0) == 7.0


@virtual_clock
async def test_time_runs_out_and_never_below_zero() -> None:
    with bounded(3.0):
        assert remaining() == 3.0
        await asyncio.sleep(2.0)
        assert remaining() == 1.0
        assert within(7.0) == 1.0
        assert within(0.5) == 0.5
        await asyncio.sleep(5.0)
        assert remaining() == 0.0
    assert remaining() is None


@virtual_clock
async def test_a_deadline_is_only_ever_shortened() -> None:
    with bounded(3.0):
        with bounded(10.0):
            assert remaining() == 3.0
        with bounded(1.0):
            assert remaining() == 1.0
        assert remaining() == 3.0


@virtual_clock
async def test_tasks_started_for_the_caller_know_his_deadline() -> None:
    async def look() -> float | None:
        return remaining()

    with bounded(3.0):
        assert await asyncio.create_task(look()) == 3.0
