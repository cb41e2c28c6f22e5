from __future__ import annotations

import asyncio
from collections import Counter

from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.policy.repairs import Repair, Repairs


class Work:
    """Does repairs, each in a second; fails those of `broken`."""

    def __init__(self, *broken: str) -> None:
        self.done: list[Repair[str]] = []
        self.broken = set(broken)
        self.counted: Counter[str] = Counter()

    async def __call__(self, repair: Repair[str]) -> bool:
        await asyncio.sleep(1.0)
        if repair.key in self.broken:
            raise Unavailable("down")
        self.done.append(repair)
        return True

    def count(self, outcome: str) -> None:
        self.counted[outcome] += 1


@virtual_clock
async def test_who_lacks_what_another_has_gets_it_once() -> None:
    work = Work()
    repairs: Repairs[str] = Repairs("m", work, work.count)
    for _ in range(3):
        repairs.lacks("key", 0)
        repairs.lacks("key", 1)
        repairs.has("key", 2)
        # Without anybody who lacked it, there is nothing to do.
        repairs.has("key", 2)
        repairs.has("other", 2)
    await asyncio.sleep(10.0)
    assert work.done == [Repair("key", 2, 0), Repair("key", 2, 1)]
    assert work.counted == {"done": 2}
    await repairs.aclose()


@virtual_clock
async def test_who_has_it_himself_by_now_gets_nothing() -> None:
    work = Work()
    repairs: Repairs[str] = Repairs("m", work)
    repairs.lacks("key", 0)
    repairs.has("key", 0)
    await asyncio.sleep(10.0)
    assert not work.done
    await repairs.aclose()


@virtual_clock
async def test_the_queue_is_bounded_and_what_does_not_fit_is_counted() -> None:
    work = Work()
    repairs: Repairs[str] = Repairs("m", work, work.count, waiting=5)
    for number in range(20):
        repairs.request(Repair(str(number), 0, 1))
    assert len(repairs) == 5
    await asyncio.sleep(100.0)
    assert work.counted == {"done": 5, "dropped": 15}
    repairs.request(Repair("later", 0, 1))
    await asyncio.sleep(10.0)
    assert work.counted["done"] == 6
    await repairs.aclose()


@virtual_clock
async def test_one_that_fails_does_not_stop_the_next() -> None:
    work = Work("b")
    repairs: Repairs[str] = Repairs("m", work, work.count)
    for key in "abc":
        repairs.request(Repair(key, 0, 1))
    await asyncio.sleep(10.0)
    assert [repair.key for repair in work.done] == ["a", "c"]
    assert work.counted == {"done": 2, "failed": 1}
    await repairs.aclose()


@virtual_clock
async def test_closing_stops_the_one_that_runs_and_takes_no_more() -> None:
    work = Work()
    repairs: Repairs[str] = Repairs("m", work)
    repairs.request(Repair("a", 0, 1))
    await asyncio.sleep(0.5)
    await repairs.aclose()
    repairs.request(Repair("b", 0, 1))
    await asyncio.sleep(10.0)
    assert not work.done and not len(repairs)
    await repairs.aclose()
