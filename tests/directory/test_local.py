"""What a table adds: rows that go bad, and Directories that stay decoded."""

from __future__ import annotations

import asyncio

import pytest

from tests.directory.samples import CLOSURE, LEAF, OTHER, ROOT
from tests.support.gated_table import GatedTable
from tvixstore.castore import Digest
from tvixstore.directory import LocalDirectoryService
from tvixstore.errors import CorruptData, StorageFull

NOT_CANONICAL = b"\x0a\x00"


@pytest.mark.parametrize("row", [b"rotten", OTHER.wire, LEAF.wire[:-1], b""])
async def test_a_row_that_hashes_to_something_else_is_corrupt_once_and_then_gone(
    row: bytes,
) -> None:
    table = GatedTable()
    service = LocalDirectoryService(table)
    await table.apply([(LEAF.digest.raw, row)])
    with pytest.raises(CorruptData):
        await service.get(LEAF.digest)
    assert service.corrupt == 1
    assert await service.get(LEAF.digest) is None


async def test_a_row_that_is_no_directory_is_corrupt_even_under_its_own_digest() -> None:
    table = GatedTable()
    service = LocalDirectoryService(table)
    digest = Digest.of(NOT_CANONICAL)
    await table.apply([(digest.raw, NOT_CANONICAL)])
    with pytest.raises(CorruptData):
        await service.get_many([digest])
    assert await service.get(digest) is None


async def test_a_corrupt_row_is_kept_if_a_put_may_have_mended_it_meanwhile() -> None:
    table = GatedTable()
    service = LocalDirectoryService(table, cached_entries=0)
    await table.apply([(LEAF.digest.raw, b"rotten")])
    table.gate.clear()
    reader = asyncio.create_task(service.get(LEAF.digest))
    await table.waiting.wait()
    await service.put(LEAF)
    table.gate.set()
    with pytest.raises(CorruptData):
        await reader
    assert await service.get(LEAF.digest) == LEAF


async def test_a_put_mends_a_corrupt_row() -> None:
    table = GatedTable()
    await table.apply([(LEAF.digest.raw, b"rotten")])
    service = LocalDirectoryService(table, cached_entries=0)
    await service.put(LEAF)
    assert await service.get(LEAF.digest) == LEAF


async def test_several_directories_are_one_change_of_the_table() -> None:
    table = GatedTable()
    await LocalDirectoryService(table).put_many(CLOSURE)
    assert table.applied == [[(each.digest.raw, each.wire) for each in CLOSURE]]


async def test_a_closure_is_one_change_of_the_table() -> None:
    table = GatedTable()
    async with await LocalDirectoryService(table).put_closure() as putter:
        for each in CLOSURE:
            await putter.put(each)
        await putter.close()
    assert len(table.applied) == 1


async def test_a_full_table_says_so_and_nothing_counts_as_stored() -> None:
    table = GatedTable()
    table.full = True
    service = LocalDirectoryService(table)
    with pytest.raises(StorageFull):
        await service.put(LEAF)
    assert await service.get(LEAF.digest) is None


async def test_a_decoded_directory_is_not_read_again() -> None:
    table = GatedTable()
    await LocalDirectoryService(table).put_many(CLOSURE)
    service = LocalDirectoryService(table)
    first = await service.get(ROOT.digest)
    reads = len(table.reads)
    assert await service.get(ROOT.digest) is first
    assert await service.get_many([ROOT.digest]) == [first]
    assert len(table.reads) == reads


async def test_decoded_directories_are_bounded_by_their_entries() -> None:
    table = GatedTable()
    # Room for one of them only: each weighs an entry more than it has.
    service = LocalDirectoryService(table, cached_entries=len(LEAF.entries) + 1)
    await service.put_many([LEAF, OTHER])
    assert await service.get(OTHER.digest) == OTHER
    assert table.reads == []
    assert await service.get(LEAF.digest) == LEAF
    assert table.reads == [LEAF.digest.raw]
