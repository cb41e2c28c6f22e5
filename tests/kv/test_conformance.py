"""The contract of `KeyValue`, over every engine: one row in `TABLES` each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tvixstore.errors import InvalidData
from tvixstore.kv import Change, KeyValue, LmdbEngine, MemoryKeyValue


@asynccontextmanager
async def memory(_: Path) -> AsyncIterator[KeyValue]:
    yield MemoryKeyValue()


@asynccontextmanager
async def lmdb(path: Path) -> AsyncIterator[KeyValue]:
    engine = LmdbEngine(path / "index")
    try:
        # A neighbour whose keys must never show up.
        await engine.table("other").apply([(b"a", b"other"), (b"key", b"other")])
        yield engine.table("table")
    finally:
        await engine.aclose()


TABLES: dict[str, Callable[[Path], AbstractAsyncContextManager[KeyValue]]] = {
    "memory": memory,
    "lmdb": lmdb,
}


@pytest.fixture(params=TABLES)
async def table(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyValue]:
    async with TABLES[request.param](tmp_path) as table:
        yield table


async def test_a_key_without_a_value_is_none(table: KeyValue) -> None:
    assert await table.get(b"key") is None


@pytest.mark.parametrize("value", [b"", b"\0", b"v" * 100_000])
async def test_a_value_comes_back_as_it_was(table: KeyValue, value: bytes) -> None:
    await table.apply([(b"key", value)])
    assert await table.get(b"key") == value


async def test_many_values_come_in_the_order_asked_for(table: KeyValue) -> None:
    await table.apply([(b"%d" % number, b"value %d" % number) for number in range(700)])
    keys = [b"%d" % number for number in range(699, -1, -1)]
    found = await table.get_many([*keys, b"absent", keys[0]])
    assert found == [*[b"value " + key for key in keys], None, b"value " + keys[0]]
    assert await table.get_many([]) == []
    assert await table.absent([b"x", *keys, b"absent", b"x"]) == [b"x", b"absent", b"x"]
    assert await table.absent([]) == []


async def test_only_the_first_value_is_put_if_absent(table: KeyValue) -> None:
    assert await table.put_if_absent(b"key", b"first")
    assert not await table.put_if_absent(b"key", b"second")
    assert await table.get(b"key") == b"first"


async def test_of_many_at_once_one_puts_if_absent(table: KeyValue) -> None:
    put = await asyncio.gather(
        *[table.put_if_absent(b"key", b"%d" % number) for number in range(50)]
    )
    assert put.count(True) == 1
    assert await table.get(b"key") == b"%d" % put.index(True)


async def test_changes_are_made_in_order(table: KeyValue) -> None:
    await table.apply([(b"a", b"1"), (b"b", b"1"), (b"a", None), (b"b", b"2"), (b"gone", None)])
    assert await table.get_many([b"a", b"b", b"gone"]) == [None, b"2", None]
    await table.apply([])


@pytest.mark.parametrize("size", [1, 511])
async def test_keys_of_any_allowed_length_work(table: KeyValue, size: int) -> None:
    await table.apply([(b"\xff" * size, b"value")])
    assert await table.scan() == [(b"\xff" * size, b"value")]


@pytest.mark.parametrize("key", [b"", b"k" * 512])
async def test_keys_of_another_length_are_refused_whole(table: KeyValue, key: bytes) -> None:
    with pytest.raises(InvalidData, match=f"key is {len(key)} bytes"):
        await table.apply([(b"good", b"value"), (key, b"value")])
    with pytest.raises(InvalidData):
        await table.get(key)
    with pytest.raises(InvalidData):
        await table.get_many([key])
    with pytest.raises(InvalidData):
        await table.absent([key])
    with pytest.raises(InvalidData):
        await table.put_if_absent(key, b"value")
    assert await table.get(b"good") is None


async def test_pages_of_a_scan_join_to_the_whole(table: KeyValue) -> None:
    expected = [(b"p%04d" % number, b"%d" % number) for number in range(600)]
    await table.apply([*reversed(expected), (b"o", b""), (b"q", b"")])
    for limit in (1, 7, 300, 599, 600, 601):
        found: list[tuple[bytes, bytes]] = []
        after = None
        while page := await table.scan(b"p", after, limit):
            assert len(page) <= limit
            found += page
            after = page[-1][0]
            if limit == 1 and len(found) == 5:
                break
        assert found == expected[: len(found)]
        assert limit == 1 or len(found) == len(expected)


async def test_a_scan_begins_after_a_key_that_need_not_be_there(table: KeyValue) -> None:
    await table.apply([(key, b"") for key in (b"a", b"a\0", b"b", b"ba", b"c")])

    async def keys(prefix: bytes, after: bytes | None) -> list[bytes]:
        return [key for key, _ in await table.scan(prefix, after)]

    assert await keys(b"", None) == [b"a", b"a\0", b"b", b"ba", b"c"]
    assert await keys(b"", b"a") == [b"a\0", b"b", b"ba", b"c"]
    assert await keys(b"b", b"a") == [b"b", b"ba"]
    assert await keys(b"b", b"b5") == [b"ba"]
    assert await keys(b"b", b"c") == []
    assert await keys(b"", b"c") == []
    assert await keys(b"x", None) == []


_KEYS = some.binary(min_size=1, max_size=3)
_CHANGES = some.lists(some.tuples(_KEYS, some.none() | some.binary(max_size=5)), max_size=20)


@pytest.mark.parametrize("name", TABLES)
@given(batches=some.lists(_CHANGES, max_size=4), prefix=some.binary(max_size=1))
def test_a_table_is_an_ordered_dict(
    name: str, tmp_path_factory: pytest.TempPathFactory, batches: list[list[Change]], prefix: bytes
) -> None:
    async def check() -> None:
        model: dict[bytes, bytes] = {}
        async with TABLES[name](tmp_path_factory.mktemp("table")) as table:
            for batch in batches:
                await table.apply(batch)
                for key, value in batch:
                    model.pop(key, None)
                    if value is not None:
                        model[key] = value
            expected = sorted(pair for pair in model.items() if pair[0].startswith(prefix))
            assert await table.scan(prefix) == expected

    asyncio.run(check())
