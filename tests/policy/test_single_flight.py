from __future__ import annotations

import asyncio

import pytest

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.policy.deadline import bounded, remaining
from tvixstore.policy.single_flight import SingleFlight


class Work:
    """Takes a second, and notes how often it was begun, finished and cancelled."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.begun = self.finished = self.cancelled = 0

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        if self.error is not None:
            raise self.error
        return self.begun


async def depart(caller: asyncio.Task[int]) -> None:
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()


def call(table: SingleFlight[str, int], work: Work) -> asyncio.Task[int]:
    return asyncio.create_task(table.run("key", work))


@virtual_clock
async def test_callers_at_the_same_time_share_the_work_and_later_ones_do_not() -> None:
    table: SingleFlight[str, int] = SingleFlight()
    work = Work()
    assert await asyncio.gather(*(table.run("key", work) for _ in range(3))) == [1, 1, 1]
    assert await table.run("key", work) == 2
    assert len(table) == 0


@virtual_clock
async def test_other_keys_do_not_wait() -> None:
    table: SingleFlight[str, int] = SingleFlight()
    work = Work()
    await asyncio.gather(table.run("a", work), table.run("b", work))
    assert (work.begun, now()) == (2, 1.0)


@virtual_clock
async def test_the_error_comes_to_everybody() -> None:
    table: SingleFlight[str, int] = SingleFlight()
    work = Work(Unavailable("down"))
    results = await asyncio.gather(
        *(table.run("key", work) for _ in range(3)), return_exceptions=True
    )
    assert [str(result) for result in results] == ["down"] * 3
    assert work.begun == 1


@pytest.mark.parametrize("leaver", [0, 1])
def test_one_leaving_does_not_hurt_the_others(leaver: int) -> None:
    @virtual_clock
    async def run() -> None:
        table: SingleFlight[str, int] = SingleFlight()
        work = Work()
        callers = [call(table, work), call(table, work)]
        await asyncio.sleep(0.5)
        await depart(callers[leaver])
        assert await callers[1 - leaver] == 1
        assert (work.begun, work.cancelled) == (1, 0)

    run()


@virtual_clock
async def test_the_work_is_cancelled_when_all_have_left() -> None:
    table: SingleFlight[str, int] = SingleFlight()
    work = Work()
    callers = [call(table, work), call(table, work)]
    await asyncio.sleep(0.5)
    for caller in callers:
        await depart(caller)
    assert (work.begun, work.finished, work.cancelled) == (1, 0, 1)
    assert await table.run("key", work) == 2


@virtual_clock
async def test_whoever_comes_while_the_work_is_being_cancelled_starts_anew() -> None:
    table: SingleFlight[str, int] = SingleFlight()
    slow_end = asyncio.Event()

    async def stubborn() -> int:
        try:
            await asyncio.sleep(1.0)
        finally:
            await slow_end.wait()
        return 0

    leaving = asyncio.create_task(table.run("key", stubborn))
    await asyncio.sleep(0.5)
    leaving.cancel()
    await asyncio.sleep(0.1)
    assert await table.run("key", Work()) == 1
    assert not leaving.done()
    slow_end.set()
    await asyncio.wait([leaving])


@virtual_clock
async def test_the_callers_deadline_is_not_the_works() -> None:
    table: SingleFlight[str, float | None] = SingleFlight()

    async def look() -> float | None:
        return remaining()

    with bounded(1.0):
        assert await table.run("key", look) is None


@virtual_clock
async def test_closing_the_table_tells_its_callers_so() -> None:
    table: SingleFlight[str, int] = SingleFlight()
    work = Work()
    caller = call(table, work)
    await asyncio.sleep(0.5)
    await table.aclose()
    with pytest.raises(Unavailable, match="shutting down"):
        await caller
    assert work.cancelled == 1


@virtual_clock
async def test_a_failure_in_the_moment_in_which_its_caller_leaves_is_no_leak() -> None:
    flights: SingleFlight[str, None] = SingleFlight()
    failing = asyncio.Event()

    async def work() -> None:
        await failing.wait()
        raise Unavailable("down")

    caller = asyncio.create_task(flights.run("key", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    failing.set()
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(flights) == 0
