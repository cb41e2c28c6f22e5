"""Pins: what is kept of them, and that a damaged record does not unpin its path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tvixstore.errors import InvalidData
from tvixstore.kv import LmdbEngine, MemoryKeyValue
from tvixstore.nix import StorePath
from tvixstore.pathinfo.pins import Pin, Pins, decode_pin, encode_pin

if TYPE_CHECKING:
    from pathlib import Path

APP = StorePath(b"\1" * 20, "app-1.0")
LIBRARY = StorePath(b"\2" * 20, "library")


def pins(table: MemoryKeyValue, now: float = 1000.5) -> Pins:
    return Pins(table, lambda: now)


async def test_a_pin_says_since_when_and_why() -> None:
    table = MemoryKeyValue()
    assert await pins(table).add(APP, "release ü") == Pin(APP, 1000, "release ü")
    await pins(table).add(LIBRARY)
    assert [pin async for pin in pins(table).list()] == [
        Pin(APP, 1000, "release ü"),
        Pin(LIBRARY, 1000),
    ]
    assert [each async for each in pins(table).hashes()] == [APP.hash, LIBRARY.hash]


async def test_pinning_again_keeps_the_time_and_the_comment_unless_there_is_another() -> None:
    table = MemoryKeyValue()
    await pins(table).add(APP, "first")
    assert await pins(table, 2000).add(APP) == Pin(APP, 1000, "first")
    assert await pins(table, 2000).add(APP, "second") == Pin(APP, 1000, "second")
    assert await pins(table, 2000).add(APP, "") == Pin(APP, 1000)


async def test_unpinning_says_whether_it_was_pinned() -> None:
    table = MemoryKeyValue()
    await pins(table).add(APP)
    assert await pins(table).remove(APP.hash)
    assert not await pins(table).remove(APP.hash)
    assert not await pins(table).has(APP.hash)


async def test_pins_outlast_the_process(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    await Pins(engine.table("pins")).add(APP, "stays")
    await engine.aclose()
    engine = LmdbEngine(tmp_path)
    found = await Pins(engine.table("pins")).get(APP.hash)
    await engine.aclose()
    assert found is not None and found.comment == "stays"


async def test_a_damaged_record_still_pins_its_path() -> None:
    table = MemoryKeyValue()
    await pins(table).add(APP, "why")
    record = bytearray(await table.get(APP.hash) or b"")
    record[-1] ^= 1
    await table.apply([(APP.hash, bytes(record))])
    assert await pins(table).has(APP.hash)
    assert [each async for each in pins(table).hashes()] == [APP.hash]
    assert [pin async for pin in pins(table).list()] == []
    # Pinned anew, it can be read again.
    await pins(table, 3000).add(APP, "again")
    assert await pins(table).get(APP.hash) == Pin(APP, 3000, "again")


def test_a_record_of_another_path_is_refused() -> None:
    with pytest.raises(InvalidData, match="another path"):
        decode_pin(LIBRARY.hash, encode_pin(Pin(APP, 1)))


@pytest.mark.parametrize("comment", ["two\nlines", "\x1b[31m", "x" * 5000])
def test_a_comment_is_one_printable_line(comment: str) -> None:
    with pytest.raises(InvalidData, match="comment"):
        Pin(APP, 1, comment)
