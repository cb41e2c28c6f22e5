"""Writes that come late: when they come, in which batches, and what failing costs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tests.support.virtual_clock import virtual_clock
from tvixstore.policy.write_behind import WriteBehind


class Sink:
    """Notes each batch with its time; can fail, and can be held open."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, dict[str, int]]] = []
        self.attempts = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def write(self, batch: Mapping[str, int]) -> None:
        self.attempts += 1
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.batches.append((asyncio.get_running_loop().time(), dict(batch)))

    def writes(self, *, delay: float = 10.0, batch: int = 3) -> WriteBehind[str, int]:
        return WriteBehind("test", self.write, delay=delay, batch=batch)


@virtual_clock
async def test_what_is_put_within_the_delay_is_one_batch() -> None:
    sink = Sink()
    writes = sink.writes()
    writes.put("a", 1)
    await asyncio.sleep(9)
    writes.put("b", 2)
    writes.put("a", 3)
    await asyncio.sleep(2)
    assert sink.batches == [(10.0, {"a": 3, "b": 2})]
    writes.put("c", 4)
    await asyncio.sleep(11)
    assert sink.batches[1:] == [(21.0, {"c": 4})]
    await writes.aclose()


@virtual_clock
async def test_full_batches_do_not_wait_and_what_is_left_does() -> None:
    sink = Sink()
    writes = sink.writes()
    for number in range(7):
        writes.put(str(number), number)
    await asyncio.sleep(11)
    assert sink.batches == [
        (0.0, {"0": 0, "1": 1, "2": 2}),
        (0.0, {"3": 3, "4": 4, "5": 5}),
        (10.0, {"6": 6}),
    ]
    await writes.aclose()


@virtual_clock
async def test_closing_writes_the_rest_at_once_and_takes_nothing_more() -> None:
    sink = Sink()
    writes = sink.writes()
    writes.put("a", 1)
    await writes.aclose()
    writes.put("b", 2)
    await writes.aclose()
    assert sink.batches == [(0.0, {"a": 1})]
    assert writes.dropped == 1


@virtual_clock
async def test_closing_what_was_never_used_is_nothing() -> None:
    await Sink().writes().aclose()


@virtual_clock
async def test_what_waits_is_visible_until_it_is_written() -> None:
    sink = Sink()
    sink.gate.clear()
    writes = sink.writes()
    writes.put("a", 1)
    assert writes.get("a") == 1
    await sink.begun.wait()
    assert writes.get("a") == 1
    writes.put("a", 2)
    assert writes.get("a") == 2
    sink.gate.set()
    await writes.aclose()
    assert writes.get("a") is None
    assert [batch for _, batch in sink.batches] == [{"a": 1}, {"a": 2}]


@virtual_clock
async def test_a_batch_that_fails_is_dropped_and_the_next_one_is_written() -> None:
    sink = Sink()
    sink.error = OSError("no room")
    writes = sink.writes()
    writes.put("a", 1)
    await asyncio.sleep(11)
    assert (sink.attempts, writes.dropped, writes.get("a")) == (1, 1, None)
    sink.error = None
    writes.put("b", 2)
    await writes.aclose()
    assert [batch for _, batch in sink.batches] == [{"b": 2}]


@virtual_clock
async def test_what_waits_is_bounded_while_a_write_hangs() -> None:
    sink = Sink()
    sink.gate.clear()
    writes = sink.writes(batch=2)
    for number in range(1000):
        writes.put(str(number), number)
    assert writes.dropped == 1000 - 40
    assert writes.get("39") == 39
    assert writes.get("40") is None
    sink.gate.set()
    await writes.aclose()
    assert sum(len(batch) for _, batch in sink.batches) == 40


@virtual_clock
async def test_its_task_is_gone_when_nothing_waits() -> None:
    sink = Sink()
    writes = sink.writes()
    writes.put("a", 1)
    await asyncio.sleep(11)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await writes.aclose()
