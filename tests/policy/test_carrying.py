from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.carrying import Carrying
from tvixstore.policy.deadline import bounded
from tvixstore.policy.race import Member, race
from tvixstore.policy.timeout import Hurried, Timeout

Call = Callable[[], Coroutine[Any, Any, str | None]]


class Answering:
    """Answers after `seconds`, with an error if it is down; counts how often it was asked."""

    def __init__(self, seconds: float, *, down: bool = False) -> None:
        self.seconds = seconds
        self.down = down
        self.asked = self.ended = 0

    async def __call__(self) -> str | None:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        self.ended += 1
        if self.down:
            raise Unavailable("nobody is there")
        return "here"


def carried(breaker: Breaker, call: Call) -> tuple[Carrying, Call]:
    carrying = Carrying(breaker)

    async def through() -> str | None:
        return await breaker.run(call)

    async def run() -> str | None:
        return await carrying.run(through)

    return carrying, run


async def outrun(call: Call, times: int = 1) -> None:
    """Has it race somebody who takes a hundredth of a second, a tenth after each other."""
    for _ in range(times):
        members = [Member("late", call), Member("fast", Answering(0.01))]
        assert await race(members) == (1, "here")
        await asyncio.sleep(0.09)


@virtual_clock
async def test_a_black_hole_that_loses_every_race_is_left_alone_in_the_end() -> None:
    breaker, hole = Breaker(failures=3), Answering(2.0, down=True)
    _, call = carried(breaker, hole)
    # Two seconds for each of three failures, and a little between them.
    await outrun(call, 65)
    assert breaker.is_open
    asked = hole.asked
    await outrun(call, 50)
    assert hole.asked == asked


@virtual_clock
async def test_a_slow_member_that_loses_every_race_is_never_left_alone() -> None:
    breaker, slow = Breaker(failures=1), Answering(0.5)
    _, call = carried(breaker, slow)
    await outrun(call, 200)
    assert not breaker.is_open
    # In 20 s it was heard of often enough to be known, and cancelled all the other times.
    assert 5 <= slow.ended <= 7
    assert slow.asked == 200


@virtual_clock
async def test_only_one_call_is_carried_at_a_time() -> None:
    breaker, hole = Breaker(failures=10), Answering(2.0, down=True)
    _, call = carried(breaker, hole)
    await outrun(call, 15)
    assert hole.ended == 0
    await asyncio.sleep(1.0)
    assert hole.ended == 1


@virtual_clock
async def test_whoever_waits_has_the_answer_or_the_error() -> None:
    _, call = carried(Breaker(), Answering(1.0))
    assert await call() == "here"
    assert now() == 1.0
    _, call = carried(Breaker(), Answering(1.0, down=True))
    with pytest.raises(Unavailable, match="nobody is there"):
        await call()


@virtual_clock
async def test_a_probe_is_carried_and_decides_though_its_caller_has_left() -> None:
    breaker, member = Breaker(failures=1, open_for=30.0), Answering(1.0, down=True)
    _, call = carried(breaker, member)
    with pytest.raises(Unavailable):
        await call()
    await asyncio.sleep(30.0)
    member.down = False
    await outrun(call)
    assert breaker.is_open
    await asyncio.sleep(1.0)
    assert not breaker.is_open


@virtual_clock
async def test_a_probe_that_is_carried_and_fails_opens_it_again() -> None:
    breaker, member = Breaker(failures=1, open_for=30.0), Answering(1.0, down=True)
    _, call = carried(breaker, member)
    with pytest.raises(Unavailable):
        await call()
    await asyncio.sleep(30.0)
    await outrun(call, 11)
    assert member.asked == 2
    assert not breaker.probe_is_due


@virtual_clock
async def test_a_probe_can_be_made_with_nobody_waiting() -> None:
    breaker, member = Breaker(failures=1, open_for=30.0), Answering(1.0)
    carrying, call = carried(breaker, member)
    assert not carrying.begin_probe(call)
    breaker.broke(Unavailable("reset"))
    assert not carrying.begin_probe(call)
    await asyncio.sleep(30.0)
    # Both go without it; one asks.
    for _ in range(2):
        assert carrying.begin_probe(lambda: breaker.run(member))
    await asyncio.sleep(1.1)
    assert not breaker.is_open
    assert member.asked == 1


@virtual_clock
async def test_a_probe_that_nobody_waits_for_has_the_time_that_it_takes() -> None:
    breaker, member = Breaker(failures=1, open_for=30.0), Answering(1.0)
    carrying = Carrying(breaker)
    breaker.broke(Unavailable("reset"))
    await asyncio.sleep(30.0)
    with bounded(0.1):
        assert carrying.begin_probe(lambda: breaker.run(lambda: Timeout(5.0).run(member)))
    await asyncio.sleep(1.1)
    assert not breaker.is_open


@virtual_clock
async def test_the_deadline_of_who_left_is_not_counted_against_a_slow_member() -> None:
    breaker, slow = Breaker(failures=1), Answering(1.0)
    _, call = carried(breaker, lambda: Timeout(5.0).run(slow))
    for _ in range(20):
        with bounded(0.05), pytest.raises((TimeoutError, Hurried)):
            async with asyncio.timeout(0.05):
                await call()
        await asyncio.sleep(5.0)
    assert not breaker.is_open
    assert slow.ended == 20


@virtual_clock
async def test_many_in_a_hurry_at_once_do_not_open_the_breaker() -> None:
    # Of whom one is carried on, and the others are not.
    breaker, slow = Breaker(failures=1), Answering(1.0)
    _, call = carried(breaker, lambda: Timeout(5.0).run(slow))

    async def in_a_hurry() -> str | None:
        with bounded(0.05):
            return await call()

    answers = await asyncio.gather(*[in_a_hurry() for _ in range(20)], return_exceptions=True)
    assert all(isinstance(each, Hurried) for each in answers)
    assert now() == pytest.approx(0.05)
    await asyncio.sleep(5.0)
    assert slow.ended == 1
    assert not breaker.is_open


@virtual_clock
async def test_closing_ends_the_call_that_is_carried() -> None:
    breaker, hole = Breaker(), Answering(3600.0)
    carrying, call = carried(breaker, hole)
    await outrun(call)
    await carrying.aclose()
    assert hole.ended == 0
    waiting = asyncio.create_task(call())
    await asyncio.sleep(0.1)
    await carrying.aclose()
    with pytest.raises(Unavailable, match="shutting down"):
        await waiting
