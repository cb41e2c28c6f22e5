from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.policy.deadline import bounded
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Hurried, Scope, Timeout, answer_within


async def hang() -> str:
    await asyncio.Event().wait()
    return "never"


@virtual_clock
async def test_an_answer_in_time_is_passed_on() -> None:
    async def call() -> str:
        await asyncio.sleep(4.9)
        return "here"

    assert await Timeout(5.0).run(call) == "here"


@virtual_clock
async def test_it_gives_up_and_says_after_how_long() -> None:
    with pytest.raises(Unavailable, match="no answer within 5 s"):
        await Timeout(5.0).run(hang)
    assert now() == 5.0


@virtual_clock
async def test_an_earlier_deadline_of_the_caller_comes_first() -> None:
    with bounded(2.0), pytest.raises(Unavailable, match="within 2 s"):
        await Timeout(5.0).run(hang)


@virtual_clock
async def test_who_was_hurried_is_told_from_who_had_its_time() -> None:
    async def attempts() -> str:
        return await Retry(attempts=3).run(lambda: Timeout(4.0).run(hang))

    cases: list[tuple[Timeout, Callable[[], Awaitable[str]], float, bool]] = [
        (Timeout(5.0), hang, 2.0, True),
        (Timeout(5.0), hang, 9.0, False),
        (Timeout(4.0, overall=6.0), attempts, 5.0, True),
        # Its second attempt has less than its time, and not for the caller.
        (Timeout(4.0, overall=6.0), attempts, 7.0, False),
    ]
    for timeout, call, deadline, hurried in cases:
        with bounded(deadline), pytest.raises(Unavailable) as raised:
            await timeout.run(call)
        assert isinstance(raised.value, Hurried) is hurried


@virtual_clock
async def test_a_timeout_from_below_is_not_taken_for_ours() -> None:
    async def call() -> str:
        raise TimeoutError("the socket's")

    with pytest.raises(TimeoutError, match="socket"):
        await answer_within(5.0, call)


@virtual_clock
async def test_overall_bounds_all_attempts_and_each_gets_its_own() -> None:
    starts: list[float] = []

    async def call() -> str:
        starts.append(now())
        return await hang()

    retry = Retry(attempts=100, min_delay=0.0, random=Random(1))
    with pytest.raises(Unavailable, match="no answer within"):
        await Timeout(3.0, overall=10.0).run(lambda: retry.run(call))
    assert starts == [0.0, 3.0, 6.0, 9.0]
    assert now() == 10.0


@virtual_clock
async def test_what_an_attempt_gets_is_nobodys_business_afterwards() -> None:
    async def done() -> str:
        return "done"

    assert await Timeout(1.0, overall=2.0).run(done) == "done"

    async def slow() -> str:
        await asyncio.sleep(60.0)
        return "slow"

    assert await Retry().run(slow) == "slow"


@virtual_clock
async def test_a_scope_cancels_what_is_inside_and_is_a_timeout_outside() -> None:
    with pytest.raises(TimeoutError), Scope(5.0) as scope:
        await hang()
    assert scope.expired and now() == 5.0


@virtual_clock
async def test_of_two_scopes_the_one_that_expires_is_the_timeout() -> None:
    with Scope(9.0) as outer:
        with pytest.raises(TimeoutError), Scope(5.0):
            await hang()
        await asyncio.sleep(1.0)
    with pytest.raises(TimeoutError), Scope(1.0) as outermost, Scope(2.0) as inner:
        await hang()
    assert (outer.expired, outermost.expired, inner.expired) == (False, True, False)


@virtual_clock
async def test_who_is_cancelled_by_others_as_a_scope_expires_is_cancelled() -> None:
    async def wait() -> None:
        with Scope(5.0):
            await hang()

    task = asyncio.create_task(wait())
    asyncio.get_running_loop().call_later(5.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == 5.0
