"""Tables in an LMDB environment: the embedded default.

Reading is a lookup in mapped memory (1 to 6 µs), done in the event loop: no thread, and no
transaction that outlives the call, because a reader that stays open keeps every page written since
from being reused. Values are copied out of the map for the same reason.

Writing waits for the disk, so one thread does all of it. Whatever waits for it goes into one
transaction: a commit costs the same for one change as for a thousand. If the group fails, each of
its batches is tried again in a transaction of its own, so that one that does not fit takes down
nobody else.

`durability="process"` leaves out the second wait of a commit, for the page that makes it the
current one (`metasync=False`): a power cut may take back the last commits, whole ones, newest
first. What LMDB also offers, not to sync at all, is left alone: a power cut could then leave a
file that cannot be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import lmdb

from tvixstore.errors import ConfigError, InvalidData, StorageFull, StoreError, Unavailable
from tvixstore.kv.files import FULL, free_bytes, storage_error, sync_directory
from tvixstore.kv.group_commit import GroupCommit
from tvixstore.kv.lmdb_table import Batch, LmdbTable, Transaction
from tvixstore.kv.steps import step
from tvixstore.log import Logger

if TYPE_CHECKING:
    from pathlib import Path

Durability = Literal["power", "process"]

Result = TypeVar("Result")

MAP_BYTES = 1 << 40
MAX_READERS = 512
MAX_TABLES = 32
# How much goes into one transaction.
MAX_GROUP_BYTES = 32 << 20

# LMDB reports a write that a full disk cut short as EIO, so room below this tells them apart.
_NO_ROOM = 1 << 20

_log = Logger(__name__)


@dataclass(eq=False, slots=True)
class _Work:
    """What one caller wants done in the writer's transaction, over as many tables as it likes."""

    make: Callable[[Transaction], Any]
    weight: int


_Item: TypeAlias = "Batch | _Work"


class LmdbEngine:
    """One environment, in the directory `path`, made if need be. To be opened after any fork.

    The map is 1 TiB of address space and never resized; the file grows as it has to, and never
    shrinks. One engine a path in a process: LMDB's locks want that. Raises `ConfigError` where
    the environment cannot be opened.
    """

    def __init__(
        self, path: Path, *, durability: Durability = "power", map_bytes: int = MAP_BYTES
    ) -> None:
        self.path = path
        self.commits = 0
        # What the data file takes; and of that, the pages that hold something: the others are free
        # for reuse. Those that the next commit turns over are counted as free, too.
        self.used_bytes = 0
        self.live_bytes = 0
        # Called in the writer's thread after each commit, and on opening, with one that reads.
        self._measures: list[Callable[[Transaction], None]] = []
        self._durability = durability
        self._map_bytes = map_bytes
        self._tables: dict[str, LmdbTable] = {}
        # Whether the environment had to be closed and could not be opened again yet.
        self._lost = False
        # Held while the environment is used off the loop, and while it is exchanged.
        self._in_use = threading.Lock()
        # The same of reading off the loop: it may wait for the disk, and writers not for it.
        self._in_reading = threading.Lock()
        self._writer = GroupCommit("tvixstore-lmdb", self._commit_group, MAX_GROUP_BYTES)
        try:
            self._environment = self._open()
        except (lmdb.Error, OSError) as error:
            raise ConfigError(f"{path}: cannot open this LMDB environment: {error}") from error

    def __repr__(self) -> str:
        return f"lmdb {self.path}"

    def table(self, name: str) -> LmdbTable:
        """The table of that name, made if need be; the same object each time."""
        if name not in self._tables:
            try:
                database = self._environment.open_db(name.encode())
            except lmdb.Error as error:
                raise self.translated(error) from error
            self._tables[name] = LmdbTable(self, name, database)
        return self._tables[name]

    def abandon(self) -> None:
        """Closes the environment, to which nobody has written yet."""
        self._environment.close()

    async def aclose(self) -> None:
        """Commits what waits, ends the writer and closes the environment."""
        try:
            await self._writer.aclose()
        finally:
            self._environment.close()

    def begin(self) -> lmdb.Transaction[bytes]:
        """A transaction that reads; to be ended before the next `await`."""
        environment = self._environment
        if not self._lost:
            try:
                return environment.begin()
            except lmdb.PanicError:
                pass
        self._reopen(environment)
        return self._environment.begin()

    @contextmanager
    def begin_in_thread(self) -> Iterator[lmdb.Transaction[memoryview]]:
        """A transaction that reads, off the loop, one at a time; values are views that end with it.

        To be short, like all that read: what is written meanwhile cannot take the place of what was
        there before.
        """
        with self._in_reading:
            if self._lost:
                raise Unavailable(f"{self.path}: this LMDB environment is to be opened again")
            try:
                with self._environment.begin(buffers=True) as transaction:
                    yield transaction
            except lmdb.Error as error:
                raise self.translated(error) from error

    def measure(self, measure: Callable[[Transaction], None]) -> None:
        """Has `measure` called with a transaction that reads: now, and after each commit."""
        with self.begin() as transaction:
            measure(transaction)
        self._measures.append(measure)

    async def transact(self, work: Callable[[Transaction], Result], weight: int = 0) -> Result:
        """Calls `work` in the writer's thread, in a transaction that it may share with others.

        All that it changes becomes visible and durable together, or nothing of it. It may be called
        twice, if the first transaction failed. `weight`: about the bytes that it writes.
        """
        result: Result = await self._submit(_Work(work, weight))
        return result

    def transact_now(self, work: Callable[[Transaction], Result]) -> Result:
        """The same in this thread, before anybody else writes. Blocks."""
        try:
            outcome: Result | Exception = self._commit_alone(_Work(work, 0))
        except lmdb.Error as error:
            raise self.translated(error) from error
        if isinstance(outcome, lmdb.Error):
            raise self.translated(outcome) from outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def write(self, batch: Batch) -> bool:
        changed: bool = await self._submit(batch)
        return changed

    async def _submit(self, batch: _Item) -> Any:
        environment = self._environment
        try:
            try:
                return await self._writer.submit(batch, batch.weight)
            except lmdb.PanicError:
                # Raised when a transaction begins: nothing of the batch was written.
                self._reopen(environment)
                return await self._writer.submit(batch, batch.weight)
        except lmdb.Error as error:
            raise self.translated(error) from error

    def _open(self) -> lmdb.Environment:
        self.path.mkdir(parents=True, exist_ok=True)
        is_new = not (self.path / "data.mdb").exists()
        environment = lmdb.open(
            os.fspath(self.path),
            map_size=self._map_bytes,
            metasync=self._durability == "power",
            max_readers=MAX_READERS,
            max_dbs=MAX_TABLES,
            # A finished reader is kept for the next one: its slot need not be found again.
            max_spare_txns=4,
        )
        for name in dict.fromkeys([*_table_names(environment), *self._tables]):
            database = environment.open_db(name.encode())
            if (table := self._tables.get(name)) is None:
                self._tables[name] = LmdbTable(self, name, database)
            else:
                table.database = database
        self._measure(environment)
        if is_new:
            for directory in (self.path, self.path.parent):
                sync_directory(directory)
        return environment

    def _reopen(self, failed: lmdb.Environment) -> None:
        """Replaces an environment that LMDB gave up on: a write of its first pages had failed.

        Only the first of those who noticed does it, and one that fails leaves it to the next.
        """
        with self._in_use, self._in_reading:
            if self._environment is not failed and not self._lost:
                return
            self._lost = True
            failed.close()
            try:
                self._environment = self._open()
            except OSError as error:
                raise storage_error(error, self.path) from error
            self._lost = False
        _log.warning("lmdb.reopened", path=self.path)

    def _commit_group(self, batches: list[_Item]) -> list[Any]:
        with self._in_use:
            try:
                return self._commit(batches)
            except Exception as error:
                if len(batches) == 1:
                    return [error]
            return [self._commit_alone(batch) for batch in batches]

    def _commit_alone(self, batch: _Item) -> Any:
        try:
            return self._commit([batch])[0]
        except Exception as error:
            return error

    def _commit(self, batches: list[_Item]) -> list[Any]:
        with self._environment.begin(write=True) as transaction:
            outcomes = [batch.make(transaction) for batch in batches]
            step("lmdb-changes-made")
        self.commits += 1
        # It is committed, whatever comes of measuring: the figures of before do until the next one.
        with contextlib.suppress(lmdb.Error):
            self._measure(self._environment)
        step("lmdb-committed")
        return outcomes

    def _measure(self, environment: lmdb.Environment) -> None:
        with environment.begin() as transaction:
            page = environment.stat()["psize"]
            # Two pages say which commit is the current one.
            pages = 2 + _pages(environment.stat())
            for table in list(self._tables.values()):
                pages += _pages(transaction.stat(table.database))
            self.used_bytes = (environment.info()["last_pgno"] + 1) * page
            self.live_bytes = min(pages * page, self.used_bytes)
            for measure in self._measures:
                measure(transaction)

    def translated(self, error: lmdb.Error) -> StoreError:
        code = getattr(error, "code", 0)
        if isinstance(error, lmdb.BadValsizeError):
            return InvalidData(f"{self.path}: {error}")
        if (
            isinstance(error, lmdb.MapFullError | lmdb.DiskError)
            or code in FULL
            or (code == errno.EIO and free_bytes(self.path) < _NO_ROOM)
        ):
            return StorageFull(f"{self.path}: no room to write: {error}")
        return Unavailable(f"{self.path}: {error}")


def _pages(stat: Any) -> int:
    pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages


def _table_names(environment: lmdb.Environment) -> list[str]:
    with environment.begin() as transaction, transaction.cursor() as cursor:
        return [key.decode() for key in cursor.iternext(keys=True, values=False)]
