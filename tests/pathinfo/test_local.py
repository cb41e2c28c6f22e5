"""What a table adds: rows that go bad, path infos that stay decoded, reads that are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.pathinfo.samples import STRANGER, Sample, add, memory_content, signed, store_path
from tests.support.gated_table import GatedTable
from tvixstore.errors import CorruptData, StorageFull
from tvixstore.kv import MemoryKeyValue
from tvixstore.pathinfo import LocalPathInfoService, local
from tvixstore.pathinfo.access import LastAccess
from tvixstore.pathinfo.codec import encode_record

HOUR = 3600


async def hello() -> Sample:
    return await add(memory_content(), "hello", b"hello")


async def test_the_same_object_comes_back_while_its_row_stays_the_same() -> None:
    service = LocalPathInfoService(GatedTable())
    sample = await hello()
    stored = await service.put(sample.info)
    assert await service.get(sample.key) is stored
    assert await service.describe(sample.key) is stored
    assert await service.put(sample.info) is stored
    merged = await service.put(signed(sample.info, STRANGER))
    assert merged is not stored
    assert await service.describe(sample.key) is merged


async def test_a_put_that_changes_nothing_writes_nothing() -> None:
    table = GatedTable()
    service = LocalPathInfoService(table)
    sample = await hello()
    await service.put(signed(sample.info, STRANGER))
    await service.put(sample.info)
    assert len(table.applied) == 1


async def test_what_another_service_wrote_to_the_table_is_seen_at_once() -> None:
    table = GatedTable()
    one, other = LocalPathInfoService(table), LocalPathInfoService(table)
    sample = await hello()
    await one.put(sample.info)
    assert await other.get(sample.key) == sample.info
    merged = await one.put(signed(sample.info, STRANGER))
    assert await other.get(sample.key) == merged


async def test_a_full_table_says_so_and_nothing_counts_as_stored() -> None:
    table = GatedTable()
    service = LocalPathInfoService(table)
    sample = await hello()
    table.full = True
    with pytest.raises(StorageFull):
        await service.put(sample.info)
    assert await service.get(sample.key) is None
    table.full = False
    await service.put(sample.info)
    assert await service.get(sample.key) == sample.info


async def bad_rows() -> list[bytes]:
    other = await add(memory_content(), "other", b"other")
    return [b"", b"\x02", b"rotten", encode_record(other.info)]


@pytest.mark.parametrize("number", range(4))
async def test_a_bad_row_is_corrupt_once_and_then_gone(number: int) -> None:
    table = GatedTable()
    service = LocalPathInfoService(table)
    sample = await hello()
    await table.apply([(sample.key, (await bad_rows())[number])])
    with pytest.raises(CorruptData, match=sample.info.store_path.digits):
        await service.get(sample.key)
    assert service.corrupt == 1
    assert await service.get(sample.key) is None


async def test_a_put_mends_a_bad_row() -> None:
    table = GatedTable()
    service = LocalPathInfoService(table)
    sample = await hello()
    await table.apply([(sample.key, b"rotten")])
    assert await service.put(sample.info) == sample.info
    assert await service.get(sample.key) == sample.info


async def test_a_bad_row_is_kept_if_a_put_mended_it_meanwhile() -> None:
    table = GatedTable()
    service = LocalPathInfoService(table)
    sample = await hello()
    await table.apply([(sample.key, b"rotten")])
    table.gate.clear()
    reader = asyncio.create_task(service.get(sample.key))
    await table.waiting.wait()
    # The reader has the bad row in hand; the table gets a good one.
    await table.apply([(sample.key, encode_record(sample.info))])
    table.gate.set()
    with pytest.raises(CorruptData):
        await reader
    assert await service.get(sample.key) == sample.info


async def test_a_bad_row_hides_no_other_from_the_list() -> None:
    table = GatedTable()
    service = LocalPathInfoService(table)
    infos = [(await add(memory_content(), f"path-{n}", b"x")).info for n in range(5)]
    for info in infos:
        await service.put(info)
    await table.apply([(infos[2].store_path.hash, b"rotten")])
    del infos[2]
    assert {info.store_path async for info in service.list()} == {i.store_path for i in infos}
    assert service.corrupt == 1


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def last_access(table: MemoryKeyValue, clock: Clock) -> AsyncIterator[LastAccess]:
    access = LastAccess(table, clock)
    try:
        yield access
    finally:
        await access.aclose()


KEY = store_path("hello").hash


async def test_a_read_is_recorded_and_survives_a_restart() -> None:
    table, clock = GatedTable(), Clock()
    async with last_access(table, clock) as access:
        assert await access.get(KEY) is None
        access.record(KEY)
        assert await access.get(KEY) == 1_700_000_000
        assert table.applied == []
    assert table.applied == [[(KEY, (1_700_000_000).to_bytes(8, "big"))]]
    async with last_access(table, clock) as access:
        assert await access.get(KEY) == 1_700_000_000


async def test_a_path_is_recorded_once_an_hour() -> None:
    table, clock = GatedTable(), Clock()
    async with last_access(table, clock) as access:
        access.record(KEY)
        clock.now += HOUR - 1
        access.record(KEY)
        assert await access.get(KEY) == 1_700_000_000
        clock.now += 1
        access.record(KEY)
        assert await access.get(KEY) == 1_700_000_000 + HOUR


async def test_a_clock_that_was_set_back_is_believed() -> None:
    table, clock = GatedTable(), Clock()
    async with last_access(table, clock) as access:
        access.record(KEY)
        clock.now -= 24 * HOUR
        access.record(KEY)
        assert await access.get(KEY) == 1_700_000_000 - 24 * HOUR


async def test_lookups_and_puts_are_recorded_and_listing_is_not() -> None:
    access = GatedTable()
    service = LocalPathInfoService(GatedTable(), access=LastAccess(access))
    names = ["put", "got", "listed", "absent"]
    put, got, only_listed, absent = [await add(memory_content(), name, b"x") for name in names]
    quiet = LocalPathInfoService(service.table)
    await quiet.put(got.info)
    await quiet.put(only_listed.info)
    await service.put(put.info)
    await service.describe(got.key)
    await service.get(absent.key)
    assert len([info async for info in service.list()]) == 3
    await service.aclose()
    assert {key for changes in access.applied for key, _ in changes} == {put.key, got.key}


async def test_reads_go_on_when_they_cannot_be_recorded() -> None:
    access = GatedTable()
    access.full = True
    service = LocalPathInfoService(GatedTable(), access=LastAccess(access))
    sample = await hello()
    stored = await service.put(replace(sample.info))
    await service.aclose()
    assert await service.get(sample.key) is stored
    await service.aclose()


async def test_what_is_kept_decoded_is_bounded_by_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "_DECODED", 20_000)
    content = memory_content()
    service = LocalPathInfoService(MemoryKeyValue(), content)
    references = [store_path(f"reference-{number}") for number in range(100)]
    samples = [
        await add(content, f"path-{number}", b"x", references=references) for number in range(20)
    ]
    for sample in samples:
        await service.put(sample.info)
    assert 0 < len(service._decoded) < 20
    for sample in samples:
        assert await service.get(sample.key) == sample.info
