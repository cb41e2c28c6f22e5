"""A spool, followed by readers of every pace, with a disk that works and one that does not."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tvixstore.errors import CorruptData
from tvixstore.policy.spool import Overrun, Spool
from tvixstore.pools import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KIB = 1 << 10
DATA = os.urandom(300 * KIB)
PARTS = [DATA[start : start + 10 * KIB] for start in range(0, len(DATA), 10 * KIB)]


@asynccontextmanager
async def spool_in(
    directory: Path, *, memory: int = 64 * KIB, window: int = 64 * KIB
) -> AsyncIterator[Spool]:
    files = Pool("files", 2)
    spool = Spool(directory, files, memory=memory, window=window)
    try:
        yield spool
    finally:
        await spool.release()
        files.close()


def write(spool: Spool, part: bytes) -> None:
    spool.store([part])
    spool.publish([part], spool.size + len(part))


async def test_a_reader_at_the_tip_and_one_from_the_start_get_the_same(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        early = asyncio.create_task(spool.open_reader().read_all())
        for part in PARTS:
            write(spool, part)
            await asyncio.sleep(0)
        spool.finish()
        assert await early == DATA
        assert await spool.open_reader().read_all() == DATA


@pytest.mark.parametrize("offset", [0, 1, 70 * KIB + 3, len(DATA) - 1, len(DATA), len(DATA) + 5])
@pytest.mark.parametrize("length", [None, 0, 1, 100 * KIB])
async def test_a_part_is_a_slice_of_the_whole(
    tmp_path: Path, offset: int, length: int | None
) -> None:
    async with spool_in(tmp_path) as spool:
        reader = asyncio.create_task(spool.open_reader(offset, length).read_all())
        for part in PARTS:
            write(spool, part)
            await asyncio.sleep(0)
        spool.finish()
        end = len(DATA) if length is None else offset + length
        assert await reader == DATA[offset:end]


async def test_what_is_small_never_touches_the_disk(tmp_path: Path) -> None:
    async with spool_in(tmp_path / "missing") as spool:
        write(spool, DATA[: 64 * KIB])
        spool.finish()
        assert await spool.open_reader().read_all() == DATA[: 64 * KIB]


async def test_the_file_has_no_name(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        for part in PARTS:
            write(spool, part)
        assert spool.whole
        assert b"".join(spool.pieces()) == DATA
        assert os.listdir(tmp_path) == []


async def test_what_is_not_released_is_not_read(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        spool.store([DATA])
        spool.publish([DATA], 1000)
        async with spool.open_reader() as reader:
            assert await anext(reader) == DATA[:1000]
            waiting = asyncio.create_task(anext(reader))
            await asyncio.sleep(0)
            assert not waiting.done()
            spool.finish()
            assert DATA[1000:].startswith(await waiting)


async def test_a_failure_breaks_readers_that_wait_and_readers_to_come(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        write(spool, DATA[:100])
        async with spool.open_reader() as reader:
            assert await anext(reader) == DATA[:100]
            waiting = asyncio.create_task(anext(reader))
            await asyncio.sleep(0)
            spool.fail(CorruptData("wrong"))
            with pytest.raises(CorruptData):
                await waiting
        async with spool.open_reader(100) as late:
            with pytest.raises(CorruptData):
                await late.ready()


async def test_without_a_disk_the_fastest_reader_paces_and_a_slow_one_is_left_behind(
    tmp_path: Path,
) -> None:
    async with spool_in(tmp_path / "missing") as spool, spool.open_reader() as slow:
        with pytest.raises(OSError):
            spool.store(PARTS)
        spool.pass_through()
        held = 0

        async def produce() -> None:
            nonlocal held
            for part in PARTS:
                spool.store([part])
                spool.publish([part], spool.size + len(part))
                await spool.room()
                held = max(held, sum(len(part) for _, part in spool._tail))
            spool.finish()

        producer = asyncio.create_task(produce())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not producer.done(), "nobody read, and yet the writer went on"
        assert await spool.open_reader().read_all() == DATA
        await producer
        assert held <= 74 * KIB
        with pytest.raises(Overrun):
            await slow.read_all()


async def test_a_disk_that_fills_up_keeps_what_it_has(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        for part in PARTS[:15]:
            write(spool, part)
        spool.pass_through()
        reader = asyncio.create_task(spool.open_reader().read_all())
        for part in PARTS[15:]:
            spool.store([part])
            spool.publish([part], spool.size + len(part))
            await spool.room()
        spool.finish()
        assert await reader == DATA


async def test_the_last_to_leave_is_noticed_and_closes_the_file(tmp_path: Path) -> None:
    files = Pool("files", 1)
    idle: list[int] = []
    spool = Spool(tmp_path, files, memory=KIB, on_idle=lambda: idle.append(spool.readers))
    write(spool, DATA)
    first, second = spool.open_reader(), spool.open_reader()
    await first.aclose()
    await first.aclose()
    assert idle == []
    await spool.release()
    descriptor = spool._descriptor
    assert descriptor is not None
    await second.aclose()
    assert idle == [0]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    files.close()


async def test_a_reader_cancelled_while_it_waits_leaves_nothing(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        async with spool.open_reader() as reader:
            waiting = asyncio.create_task(anext(reader))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert not spool._waiters
        assert not spool.readers


async def test_a_release_that_is_cancelled_while_threads_are_busy_closes_the_file(
    tmp_path: Path,
) -> None:
    """The leak check sees to it: it would find the file open."""
    go = threading.Event()
    async with spool_in(tmp_path, memory=KIB) as spool:
        write(spool, PARTS[0])
        busy = [asyncio.create_task(spool._files.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        releasing = asyncio.create_task(spool.release())
        await asyncio.sleep(0)
        releasing.cancel()
        # So that it hears of it while the pool is still busy.
        for _ in range(3):
            await asyncio.sleep(0)
        go.set()
        await asyncio.wait([releasing, *busy])
        assert releasing.cancelled()


async def test_what_goes_wrong_after_the_end_breaks_no_reader(tmp_path: Path) -> None:
    async with spool_in(tmp_path) as spool:
        for part in PARTS:
            write(spool, part)
        spool.finish()
        spool.fail(CorruptData("cannot be unpacked"))
        assert await spool.open_reader().read_all() == DATA
