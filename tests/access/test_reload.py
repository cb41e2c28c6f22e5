"""Files that change: read again once, and kept as they were where they cannot be used."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.access import Reloaded, Watch
from tvixstore.errors import ConfigError
from tvixstore.pools import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def files() -> Iterator[Pool]:
    pool = Pool("files", 1)
    yield pool
    pool.close()


class Numbers:
    """The sum of the numbers in two files."""

    def __init__(self, folder: Path) -> None:
        self.one, self.two = folder / "one", folder / "two"
        self.one.write_text("1")
        self.two.write_text("2")
        self.used: list[int] = []
        self.reads = 0
        self.reloaded: Reloaded[int] = Reloaded(
            "numbers", [self.one, self.two], self.read, self.use
        )

    def read(self) -> int:
        self.reads += 1
        try:
            return int(self.one.read_text()) + int(self.two.read_text())
        except (OSError, ValueError):
            raise ConfigError("not a number") from None

    async def use(self, number: int) -> None:
        self.used.append(number)


async def test_what_did_not_change_is_not_read(tmp_path: Path, files: Pool) -> None:
    numbers = Numbers(tmp_path)
    assert numbers.reloaded.first() == 3
    for _ in range(3):
        await numbers.reloaded.look(files)
    assert (numbers.used, numbers.reads) == ([], 1)


async def test_what_changes_is_used(tmp_path: Path, files: Pool) -> None:
    numbers = Numbers(tmp_path)
    numbers.reloaded.first()
    numbers.two.write_text("20")
    await numbers.reloaded.look(files)
    # Of the same size, and in the place of another file.
    (tmp_path / "new").write_text("30")
    (tmp_path / "new").replace(numbers.two)
    await numbers.reloaded.look(files)
    assert numbers.used == [21, 31]


async def test_a_broken_change_is_told_once_and_the_old_stays(
    tmp_path: Path, files: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = Numbers(tmp_path)
    numbers.reloaded.first()
    with caplog.at_level(logging.INFO, "tvixstore"):
        numbers.two.write_text("half a numb")
        for _ in range(3):
            await numbers.reloaded.look(files)
        assert [record.getMessage() for record in caplog.records] == ["access.not_reloaded"]
        numbers.two.unlink()
        await numbers.reloaded.look(files)
        numbers.two.write_text("5")
        await numbers.reloaded.look(files)
    assert [record.getMessage() for record in caplog.records] == [
        "access.not_reloaded",
        "access.not_reloaded",
        "access.reloaded",
    ]
    assert numbers.used == [6]


async def test_what_could_not_be_used_is_tried_again(tmp_path: Path, files: Pool) -> None:
    numbers = Numbers(tmp_path)
    numbers.reloaded.first()
    numbers.two.write_text("20")

    async def fail(number: int) -> None:
        raise OSError("too many open files")

    numbers.reloaded.use = fail
    with pytest.raises(OSError, match="too many"):
        await numbers.reloaded.look(files)
    numbers.reloaded.use = numbers.use
    await numbers.reloaded.look(files)
    assert numbers.used == [21]


@virtual_clock
async def test_a_watch_looks_every_second_until_it_is_cancelled(tmp_path: Path) -> None:
    looks = 0

    class Counted(Reloaded[int]):
        async def look(self, files: Pool) -> None:
            nonlocal looks
            looks += 1
            if looks == 1:
                raise RuntimeError("a mistake of ours")

    pool = Pool("files", 1)
    numbers = Numbers(tmp_path)
    counted = Counted("numbers", [], numbers.read, numbers.use)
    watching = asyncio.create_task(Watch(pool, [counted]).run())
    await asyncio.sleep(10.5)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    pool.close()
    assert looks == 10
