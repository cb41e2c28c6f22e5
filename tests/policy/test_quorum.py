from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import InvalidData, ReadOnly, StorageFull, Unavailable
from tvixstore.policy.quorum import at_all, parse_quorum
from tvixstore.policy.race import Member

Ask = Callable[[], Coroutine[Any, Any, str]]


def after(seconds: float, says: str | Exception = "done") -> Ask:
    async def ask() -> str:
        await asyncio.sleep(seconds)
        if isinstance(says, Exception):
            raise says
        return says

    return ask


def members(*asks: Ask) -> dict[int, Member[str]]:
    return {index: Member("abc"[index], ask) for index, ask in enumerate(asks)}


def down() -> Unavailable:
    return Unavailable("down")


@pytest.mark.parametrize(
    ("written", "count", "enough"),
    [("all", 3, 3), ("majority", 3, 2), ("majority", 4, 3), ("majority", 1, 1), (2, 3, 2)],
)
def test_a_quorum_is_a_number_of_members(written: object, count: int, enough: int) -> None:
    assert parse_quorum(written, count) == enough


@pytest.mark.parametrize("written", [0, 4, -1, True, "most", None, 1.0])
def test_no_more_than_all_and_no_less_than_one_is_a_quorum(written: object) -> None:
    with pytest.raises(ValueError, match="from 1 to 3"):
        parse_quorum(written, 3)


@virtual_clock
async def test_all_do_it_at_the_same_time() -> None:
    outcomes = await at_all(members(after(1.0), after(1.0), after(1.0)), 3)
    assert set(outcomes.done) == {0, 1, 2} and not outcomes.failed
    assert now() == 1.0


@virtual_clock
async def test_enough_is_enough_and_says_who_failed() -> None:
    outcomes = await at_all(members(after(1.0), after(0.0, down()), after(2.0)), 2)
    assert set(outcomes.done) == {0, 2}
    assert str(outcomes.failed[1]) == "down"


@virtual_clock
async def test_it_fails_as_soon_as_it_cannot_succeed_with_every_reason() -> None:
    with pytest.raises(Unavailable, match=r"a: down; b: down; c: c was too slow"):
        await at_all(members(after(0.0, down()), after(1.0, down()), after(1e6)), 2)
    assert now() == 1.0


@virtual_clock
async def test_one_that_hangs_does_not_hold_up_the_others_for_long() -> None:
    outcomes = await at_all(members(after(1.0), after(1e6), after(2.0)), 2, patience=5.0)
    assert set(outcomes.done) == {0, 2} and set(outcomes.failed) == {1}
    assert now() == 7.0


@pytest.mark.parametrize("error", [ReadOnly("x"), InvalidData("x"), StorageFull("x")])
def test_what_all_say_is_what_the_group_says(error: Exception) -> None:
    @virtual_clock
    async def run() -> None:
        with pytest.raises(type(error), match="x"):
            await at_all(members(after(0.0, error), after(1.0, error)), 1)

    run()


@virtual_clock
async def test_who_is_cancelled_leaves_no_task() -> None:
    task = asyncio.create_task(at_all(members(after(1e6), after(1e6)), 2))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leaves_after", [1.0, 2.0, 3.0])
def test_what_was_done_for_a_caller_who_leaves_is_disposed_of(leaves_after: float) -> None:
    @virtual_clock
    async def run() -> None:
        disposed = []

        async def dispose(what: str) -> None:
            disposed.append(what)
            await asyncio.sleep(5.0)

        call = at_all(members(after(0.5), after(1.5), after(60.0)), 2, 1.0, dispose)
        asking = asyncio.create_task(call)
        await asyncio.sleep(leaves_after)
        asking.cancel()
        await asyncio.wait([asking])
        # By 2.5 s there were enough, and nobody was waited for any longer.
        assert asking.cancelled() == (leaves_after < 2.5)
        assert disposed == {1.0: ["done"], 2.0: ["done", "done"], 3.0: []}[leaves_after]

    run()
