"""What upstreams said: how long it counts, how much is kept, and what a bad table costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.pathinfo.samples import store_path
from tvixstore.errors import InvalidData, StorageFull, Unavailable
from tvixstore.kv import Change, KeyValue, LmdbEngine, MemoryKeyValue
from tvixstore.pathinfo import ABSENT, RememberedAnswers

UP, OTHER_UP = b"cache.example", b"other"
HOUR = 3600.0


def key(number: int = 0) -> bytes:
    return store_path(f"path-{number}").hash


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Table(MemoryKeyValue):
    """Can fail, notes the largest page asked for, and can hold reads back."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.broken = False
        self.attempts = 0
        self.largest_page = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def get(self, key: bytes) -> bytes | None:
        if self.broken:
            raise Unavailable("no disk")
        value = await super().get(key)
        if not self.gate.is_set():
            self.waiting.set()
            await self.gate.wait()
        return value

    async def apply(self, changes: Sequence[Change]) -> None:
        self.attempts += 1
        if self.full:
            raise StorageFull("no room")
        await super().apply(changes)

    async def scan(
        self, prefix: bytes = b"", after: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        page = await super().scan(prefix, after, limit)
        self.largest_page = max(self.largest_page, len(page))
        return page

    async def rows(self, prefix: bytes) -> list[bytes]:
        return [key for key, _ in await super().scan(prefix, limit=1_000_000)]


@asynccontextmanager
async def remembering(
    table: KeyValue, clock: Clock, capacity: int = 1000
) -> AsyncIterator[RememberedAnswers]:
    """One run of the daemon: what is remembered is written when it ends."""
    answers = RememberedAnswers(table, capacity=capacity, now=clock)
    try:
        yield answers
    finally:
        await answers.aclose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_nothing_is_remembered_at_first(clock: Clock) -> None:
    async with remembering(Table(), clock) as answers:
        assert await answers.get(UP, key()) is None


async def test_an_answer_is_visible_at_once_and_after_a_restart(clock: Clock) -> None:
    table = Table()
    for run in range(3):
        async with remembering(table, clock) as answers:
            if run == 0:
                answers.remember(UP, key(0), "StorePath: …\n", HOUR)
                answers.remember(UP, key(1), None, HOUR)
            assert await answers.get(UP, key(0)) == "StorePath: …\n"
            assert await answers.get(UP, key(1)) is ABSENT
            assert await answers.get(UP, key(2)) is None


async def test_it_survives_on_disk(clock: Clock, tmp_path: Path) -> None:
    for run in range(2):
        engine = LmdbEngine(tmp_path)
        async with remembering(engine.table("remembered"), clock) as answers:
            if run == 0:
                answers.remember(UP, key(0), "text", HOUR)
                answers.remember(UP, key(1), None, HOUR)
            assert await answers.get(UP, key(0)) == "text"
            assert await answers.get(UP, key(1)) is ABSENT
        await engine.aclose()


async def test_it_is_written_without_being_closed(clock: Clock) -> None:
    written = asyncio.Event()

    class Noticed(Table):
        async def apply(self, changes: Sequence[Change]) -> None:
            await super().apply(changes)
            written.set()

    table = Noticed()
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(), "text", HOUR)
        await written.wait()
        async with remembering(table, clock) as later:
            assert await later.get(UP, key()) == "text"


async def test_upstreams_are_told_apart(clock: Clock) -> None:
    async with remembering(Table(), clock) as answers:
        answers.remember(UP, key(), None, HOUR)
        assert await answers.get(OTHER_UP, key()) is None
        assert await answers.get(b"", key()) is None


async def test_an_answer_counts_until_its_time_is_over(clock: Clock) -> None:
    table = Table()
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(), "text", 60)
        clock.now += 59.9
        assert await answers.get(UP, key()) == "text"
        clock.now += 0.1
        assert await answers.get(UP, key()) is None
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) is None
        clock.now -= 1
        assert await answers.get(UP, key()) == "text"


async def test_an_answer_from_the_future_does_not_count(clock: Clock) -> None:
    async with remembering(Table(), clock) as answers:
        answers.remember(UP, key(), None, HOUR)
        clock.now -= 24 * HOUR
        assert await answers.get(UP, key()) is None


async def test_the_last_answer_counts_and_leaves_one_row_of_each_kind(clock: Clock) -> None:
    table = Table()
    for text, ttl in [("one", HOUR), (None, 60), ("two", HOUR), ("three", HOUR)]:
        async with remembering(table, clock) as answers:
            answers.remember(UP, key(), text, ttl)
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) == "three"
    assert (len(await table.rows(b"k")), len(await table.rows(b"t"))) == (1, 1)


async def test_a_forgotten_answer_is_gone_at_once_and_for_good(clock: Clock) -> None:
    table = Table()
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(), "text", HOUR)
    async with remembering(table, clock) as answers:
        answers.forget(UP, key())
        answers.forget(UP, key(1))
        assert await answers.get(UP, key()) is None
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) is None
    assert await table.rows(b"") == []


async def test_what_is_forgotten_while_it_is_read_is_not_answered(clock: Clock) -> None:
    table = Table()
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(), "text", HOUR)
    async with remembering(table, clock) as answers:
        table.gate.clear()
        reader = asyncio.create_task(answers.get(UP, key()))
        await table.waiting.wait()
        answers.forget(UP, key())
        table.gate.set()
        assert await reader is None


async def test_a_huge_answer_is_not_kept_and_drops_the_one_before(clock: Clock) -> None:
    async with remembering(Table(), clock) as answers:
        answers.remember(UP, key(), "small", HOUR)
        answers.remember(UP, key(), "é" * (32 << 10), HOUR)
        assert await answers.get(UP, key()) == "é" * (32 << 10)
        answers.remember(UP, key(), "é" * (32 << 10) + "x", HOUR)
        assert await answers.get(UP, key()) is None


async def test_what_expires_first_makes_room(clock: Clock) -> None:
    table = Table()
    for number in range(30):
        async with remembering(table, clock, capacity=10) as answers:
            answers.remember(UP, key(number), "text", HOUR + (number * 7) % 30)
    assert (len(await table.rows(b"k")), len(await table.rows(b"t"))) == (10, 10)
    async with remembering(table, clock, capacity=10) as answers:
        found = [n for n in range(30) if await answers.get(UP, key(n)) is not None]
    assert len(found) == 10
    # The last to come stays, whatever it pushes out.
    assert 29 in found


async def test_a_batch_larger_than_the_capacity_is_cut(clock: Clock) -> None:
    table = Table()
    async with remembering(table, clock, capacity=10) as answers:
        for number in range(100):
            answers.remember(UP, key(number), None, HOUR + number)
    assert (len(await table.rows(b"k")), len(await table.rows(b"t"))) == (10, 10)
    async with remembering(table, clock, capacity=10) as answers:
        assert await answers.get(UP, key(99)) is ABSENT


async def test_what_expired_is_swept_a_page_at_a_time(clock: Clock) -> None:
    table = Table()
    async with remembering(table, clock, capacity=5000) as answers:
        for number in range(3000):
            answers.remember(UP, key(number), None, 60)
        answers.remember(UP, key(5000), "text", HOUR)
    clock.now += 61
    async with remembering(table, clock, capacity=5000) as answers:
        answers.remember(UP, key(5001), "text", HOUR)
    assert (len(await table.rows(b"k")), len(await table.rows(b"t"))) == (2, 2)
    assert table.largest_page <= 500


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(20), bytes(21), b"\xff" * 40, b"text" * 100])
async def test_garbage_is_nothing_counted_and_dropped(clock: Clock, garbage: bytes) -> None:
    table = Table()
    await table.apply([(b"k" + UP + key(), garbage)])
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) is None
        assert answers.corrupt == 1
        assert await answers.get(UP, key()) is None
        assert answers.corrupt == 1
    assert await table.rows(b"") == []


async def test_a_flipped_bit_is_garbage(clock: Clock) -> None:
    table = Table()
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(), "text", HOUR)
    ((name, row),) = await table.scan(b"k")
    await table.apply([(name, row[:-1] + bytes([row[-1] ^ 1]))])
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) is None
        assert answers.corrupt == 1


async def test_a_garbage_index_is_swept(clock: Clock) -> None:
    table = Table()
    await table.apply([(b"t", b""), (b"t" + bytes(4), b"x"), (b"t" + bytes(8), b"")])
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(), "text", HOUR)
    assert (len(await table.rows(b"k")), len(await table.rows(b"t"))) == (1, 1)


async def test_a_full_disk_costs_the_answers_and_no_lookup(clock: Clock) -> None:
    table = Table()
    table.full = True
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(), "text", HOUR)
        assert await answers.get(UP, key()) == "text"
    assert (answers.dropped, table.attempts) == (1, 1)
    table.full = False
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) is None
        answers.remember(UP, key(), "text", HOUR)
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) == "text"


async def test_a_table_that_cannot_be_read_is_nothing_remembered(clock: Clock) -> None:
    table = Table()
    table.broken = True
    async with remembering(table, clock) as answers:
        assert await answers.get(UP, key()) is None
        assert answers.failed_reads == 1


async def test_names_and_hashes_of_another_length_are_refused(clock: Clock) -> None:
    async with remembering(Table(), clock) as answers:
        for upstream, path_hash in [(b"x" * 17, key()), (UP, key()[:19])]:
            with pytest.raises(InvalidData):
                await answers.get(upstream, path_hash)
            with pytest.raises(InvalidData):
                answers.remember(upstream, path_hash, None, HOUR)
            with pytest.raises(InvalidData):
                answers.forget(upstream, path_hash)


async def test_absences_are_forgotten_on_demand_and_for_good_and_nothing_else_is(
    clock: Clock,
) -> None:
    table = Table()
    async with remembering(table, clock, capacity=5000) as answers:
        for number in range(1200):
            answers.remember(UP, key(number), None, HOUR)
        answers.remember(UP, key(5000), "text", HOUR)
    async with remembering(table, clock, capacity=5000) as answers:
        # Some are on disk, one is not there yet.
        answers.remember(OTHER_UP, key(0), None, HOUR)
        assert await answers.forget_absences() == 1201
        assert await answers.get(UP, key(0)) is None
        assert await answers.get(OTHER_UP, key(0)) is None
        assert await answers.get(UP, key(5000)) == "text"
        assert await answers.forget_absences() == 0
        answers.remember(UP, key(0), None, HOUR)
    async with remembering(table, clock, capacity=5000) as answers:
        assert await answers.get(UP, key(0)) is ABSENT
        assert await answers.get(UP, key(1199)) is None
        assert await answers.get(OTHER_UP, key(0)) is None


async def test_absences_of_one_path_are_forgotten_for_all_upstreams(clock: Clock) -> None:
    table = Table()
    async with remembering(table, clock) as answers:
        answers.remember(UP, key(0), None, HOUR)
        answers.remember(UP, key(1), None, HOUR)
    async with remembering(table, clock) as answers:
        answers.remember(OTHER_UP, key(0), None, HOUR)
        assert await answers.forget_absences([key(0)]) == 2
        assert await answers.get(UP, key(0)) is None
        assert await answers.get(OTHER_UP, key(0)) is None
        assert await answers.get(UP, key(1)) is ABSENT


async def test_an_absence_from_before_it_was_forgotten_is_not_remembered(clock: Clock) -> None:
    async with remembering(Table(), clock) as answers:
        moment = answers.moment()
        await answers.forget_absences()
        answers.remember_absent(UP, key(), HOUR, moment)
        assert await answers.get(UP, key()) is None
        answers.remember_absent(UP, key(), HOUR, answers.moment())
        assert await answers.get(UP, key()) is ABSENT
