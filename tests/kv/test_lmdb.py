"""What an LMDB engine owes beyond the contract of a table: groups, atomicity, errors, its end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.small_disk import fill, small_disk
from tvixstore.errors import ConfigError, StorageFull, Unavailable
from tvixstore.kv import Durability, LmdbEngine


@asynccontextmanager
async def opened(path: Path, map_bytes: int = 1 << 40) -> AsyncIterator[LmdbEngine]:
    engine = LmdbEngine(path / "index", map_bytes=map_bytes)
    try:
        yield engine
    finally:
        await engine.aclose()


class Gate:
    """Holds the writer's thread before its next group until it is opened."""

    def __init__(self, engine: LmdbEngine) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._engine._in_use.acquire()

    def __exit__(self, *_: object) -> None:
        self._engine._in_use.release()


async def turns() -> None:
    """Lets every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_what_was_written_is_there_when_opened_again(
    tmp_path: Path, durability: Durability
) -> None:
    for number in range(3):
        engine = LmdbEngine(tmp_path, durability=durability)
        table = engine.table("table")
        assert len(await table.scan()) == number
        await table.apply([(b"%d" % number, b"value")])
        await engine.aclose()


async def test_writes_that_wait_share_a_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        table = engine.table("table")
        await asyncio.gather(*[table.apply([(b"%d" % n, b"value")]) for n in range(500)])
        assert len(await table.scan()) == 500
        assert engine.commits <= 50


async def test_a_batch_that_fails_takes_down_nobody_else(tmp_path: Path) -> None:
    async with opened(tmp_path, map_bytes=1 << 20) as engine:
        table = engine.table("table")
        with Gate(engine):
            first = asyncio.create_task(table.apply([(b"first", b"value")]))
            await turns()
            # These go into one group: the second does not fit the map.
            group = [
                asyncio.create_task(table.apply([(b"before", b"value")])),
                asyncio.create_task(
                    table.apply([(b"in front", b"value"), (b"large", bytes(4 << 20))])
                ),
                asyncio.create_task(table.apply([(b"after", b"value")])),
            ]
            await turns()
        await first
        outcomes = await asyncio.gather(*group, return_exceptions=True)
        assert isinstance(outcomes[1], StorageFull)
        assert outcomes[0] is None and outcomes[2] is None
        # Nothing of the failed batch stayed.
        assert [key for key, _ in await table.scan()] == [b"after", b"before", b"first"]


async def test_a_full_map_is_a_full_store_and_takes_smaller_batches(tmp_path: Path) -> None:
    async with opened(tmp_path, map_bytes=1 << 20) as engine:
        table = engine.table("table")
        with pytest.raises(StorageFull):
            await table.apply([(b"large", bytes(2 << 20))])
        await table.apply([(b"small", b"value")])
        assert [key for key, _ in await table.scan()] == [b"small"]


async def test_a_full_disk_is_a_full_store_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, megabytes=8) as disk:
        async with opened(disk) as engine:
            table = engine.table("table")
            await table.apply([(b"before", b"value")])
            ballast = fill(disk)
            with pytest.raises(StorageFull, match="no room to write"):
                await table.apply([(b"a", b"value"), (b"large", bytes(1 << 20))])
            assert [key for key, _ in await table.scan()] == [b"before"]
            ballast.unlink()
            await table.apply([(b"large", bytes(1 << 20))])
            assert [key for key, _ in await table.scan()] == [b"before", b"large"]


async def test_a_cancelled_writer_harms_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        table = engine.table("table")
        with Gate(engine):
            first = asyncio.create_task(table.apply([(b"first", b"value")]))
            await turns()
            left = asyncio.create_task(table.apply([(b"left", b"value")]))
            stays = asyncio.create_task(table.apply([(b"stays", b"value")]))
            await turns()
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
        await first
        await stays
        assert [key for key, _ in await table.scan()] == [b"first", b"stays"]


async def test_closing_commits_what_waits_and_ends_the_thread(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    table = engine.table("table")
    waiting = [asyncio.create_task(table.apply([(b"%d" % n, b"value")])) for n in range(20)]
    await asyncio.sleep(0)
    await engine.aclose()
    await engine.aclose()
    await asyncio.gather(*waiting)
    assert not [thread for thread in threading.enumerate() if "lmdb" in thread.name]
    with pytest.raises(Unavailable):
        await table.apply([(b"late", b"value")])
    with pytest.raises(Unavailable):
        await table.get(b"0")
    reopened = LmdbEngine(tmp_path)
    assert len(await reopened.table("table").scan()) == 20
    await reopened.aclose()


async def test_a_directory_that_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not LMDB " * 1000)
    with pytest.raises(ConfigError, match="cannot open this LMDB environment") as raised:
        LmdbEngine(tmp_path)
    assert "\n" not in str(raised.value)


def swap_descriptor(wanted: Callable[[str, int], bool], replacement: int) -> int:
    """Puts `replacement` in the place of an open file of this process, found by path and flags."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
            with open(f"/proc/self/fdinfo/{name}") as info:
                flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags"))
        except FileNotFoundError:
            continue
        if wanted(path, flags):
            os.dup2(replacement, number, inheritable=False)
            return number
    raise AssertionError("no such file is open")


async def test_an_environment_that_lmdb_gave_up_on_is_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as engine:
        table = engine.table("table")
        await table.apply([(b"before", b"value")])
        data = tmp_path / "index" / "data.mdb"
        # LMDB writes its first pages through a descriptor of their own; make those writes fail.
        broken = os.open(data, os.O_RDONLY)
        swap_descriptor(lambda path, flags: path == str(data) and bool(flags & os.O_DSYNC), broken)
        os.close(broken)
        with pytest.raises(Unavailable):
            await table.apply([(b"failed", b"value")])
        assert not caplog.records
        assert await table.get(b"before") == b"value"
        assert [record.message for record in caplog.records] == ["lmdb.reopened"]
        await table.apply([(b"after", b"value")])
        assert [key for key, _ in await table.scan()] == [b"after", b"before"]
