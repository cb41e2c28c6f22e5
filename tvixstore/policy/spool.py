"""A spool: the bytes of one download, written once and followed by any number of readers.

The writer never waits for a reader. What came last stays in memory, so that readers at the tip read
without a thread; all of it goes to a file once it outgrows memory, so that late and slow readers
find it there. The file has no name: whatever happens to the process, nothing is left of it.

Where no file can be written (the disk is full), the spool *passes*: it keeps a bounded window in
memory, and then, and only then, the fastest reader paces the writer. A reader who fell behind the
window gets `Overrun` and has to find the bytes elsewhere.

`released` is how far readers may read; the writer holds the rest back until it is verified.

A writer that has had a failure, and tries again, says so (`doubt`). Readers who could have the
bytes from somebody else (`elsewhere`) get `Doubted` instead of waiting for how that ends.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from typing import TYPE_CHECKING

from tvixstore.errors import StoreError, Unavailable
from tvixstore.policy import tasks
from tvixstore.policy.elsewhere import is_elsewhere
from tvixstore.streams import ByteStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tvixstore.pools import Pool

MEMORY = 1 << 20
WINDOW = 4 << 20
PIECE = 256 << 10


class Overrun(Unavailable):
    """The reader is behind what a passing spool still holds."""


class Doubted(Unavailable):
    """The bytes may still come, but whoever reads has somebody else to ask."""


class Spool:
    """Owned by its writer, who calls `release` when it is done; readers hold it open until then."""

    def __init__(
        self,
        directory: Path,
        files: Pool,
        *,
        memory: int = MEMORY,
        window: int = WINDOW,
        on_idle: Callable[[], None] = lambda: None,
        on_pass: Callable[[], None] = lambda: None,
        on_doubt: Callable[[], None] = lambda: None,
    ) -> None:
        self.size = 0
        self.released = 0
        self.passing = False
        self.finished = False
        self.error: StoreError | None = None
        # Why it is not certain that there will be more; the writer clears it.
        self.doubt: Doubted | None = None
        self._directory = directory
        self._files = files
        self.memory = memory
        self._window = window
        self._on_idle = on_idle
        self._on_pass = on_pass
        self._on_doubt = on_doubt
        self._tail: deque[tuple[int, bytes]] = deque()
        self._tail_bytes = 0
        self._descriptor: int | None = None
        self._in_file = 0
        self._readers: set[SpoolReader] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._owned = True

    @property
    def readers(self) -> int:
        return len(self._readers)

    @property
    def whole(self) -> bool:
        """Whether every byte so far can still be read."""
        return self._in_file == self.size or not self._tail or self._tail[0][0] == 0

    # The writer's side.

    def store(self, pieces: Sequence[bytes]) -> None:
        """Writes `pieces` to the file if there has to be one. Blocks: call it in a thread.

        The writer calls `publish` with the same pieces afterwards, or, when this raises `OSError`,
        after `pass_through`.
        """
        if self.passing:
            return
        total = sum(map(len, pieces))
        if self._descriptor is None:
            if self.size + total <= self.memory:
                return
            self._descriptor = _unnamed_file(self._directory)
            pieces = [*(part for _, part in self._tail), *pieces]
        for piece in pieces:
            _write_all(self._descriptor, piece, self._in_file)
            self._in_file += len(piece)

    def pass_through(self) -> None:
        """From now on nothing is written to disk; what is there already stays readable."""
        self.passing = True
        self._on_pass()

    def publish(self, pieces: Sequence[bytes], released: int) -> None:
        """Shows `pieces`, the next ones, to the readers, who may read up to `released`."""
        for piece in pieces:
            self._tail.append((self.size, piece))
            self._tail_bytes += len(piece)
            self.size += len(piece)
        self.released = min(released, self.size)
        self._trim()
        self._wake()

    async def room(self) -> None:
        """Waits, in a passing spool, until the fastest reader has made room for more."""
        while self.passing and self._tail_bytes >= self._window:
            await self._changed()
            self._trim()

    def finish(self) -> None:
        """Everything is there and right: releases the rest."""
        self.released = self.size
        self.finished = True
        self._wake()

    def fail(self, error: StoreError) -> None:
        """Breaks every reader's stream, those that are still to come too, unless it is finished:
        what went wrong afterwards is not in the bytes."""
        self.error = error
        self._wake()

    def cast_doubt(self, error: StoreError) -> None:
        """Nothing comes, for that reason, though it may come again."""
        self.doubt = Doubted(str(error))
        self._wake()
        self._on_doubt()

    def pieces(self) -> Iterator[bytes]:
        """All bytes from the start. Blocks: call it in a thread, while `whole`."""
        if self._in_file < self.size:
            yield from [part for _, part in self._tail]
            return
        assert self._descriptor is not None, "bytes in a file that was never opened"
        position = 0
        while piece := os.pread(self._descriptor, PIECE, position):
            position += len(piece)
            yield piece

    async def release(self) -> None:
        """The writer is done with it; the last reader to leave closes the file."""
        self._owned = False
        await self._close_if_unused()

    # The readers' side.

    def open_reader(self, offset: int = 0, length: int | None = None) -> SpoolReader:
        reader = SpoolReader(self, offset, length)
        self._readers.add(reader)
        return reader

    async def read(self, position: int, limit: int) -> bytes:
        """Up to `limit` bytes that are released; raises `Overrun` if they are gone."""
        if self._tail and position >= self._tail[0][0]:
            for start, part in reversed(self._tail):
                if start <= position:
                    skip = position - start
                    return part if not skip and len(part) <= limit else part[skip : skip + limit]
        if self._descriptor is not None and position < self._in_file:
            amount = min(limit, PIECE, self._in_file - position)
            return await self._files.run(os.pread, self._descriptor, amount, position)
        raise Overrun(f"byte {position} is gone from a spool that keeps only a window")

    async def _changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def _leave(self, reader: SpoolReader) -> None:
        if reader not in self._readers:
            return
        self._readers.discard(reader)
        self._wake()
        if not self._readers:
            self._on_idle()
        await self._close_if_unused()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _trim(self) -> None:
        if self._in_file == self.size:
            floor = self.size
            keep = self.memory
        elif self.passing:
            floor = max((reader.position for reader in self._readers), default=0)
            # Slower readers get half of the window before they are left behind.
            keep = self._window // 2
        else:
            return
        while self._tail_bytes > keep and self._tail:
            start, part = self._tail[0]
            if start + len(part) > floor:
                break
            self._tail.popleft()
            self._tail_bytes -= len(part)

    async def _close_if_unused(self) -> None:
        if self._owned or self._readers or self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        # Closing the last descriptor of a large file frees its blocks, which takes a while. It has
        # a task of its own: a call cancelled while it queues for a thread would never be made.
        closing = asyncio.create_task(self._files.run(os.close, descriptor), name="close spool")
        await tasks.outwait([closing])
        closing.result()


class SpoolReader(ByteStream):
    """Follows a spool from `offset` for `length` bytes, at its own pace."""

    def __init__(self, spool: Spool, offset: int, length: int | None) -> None:
        self.position = offset
        self._spool = spool
        self._end = None if length is None else offset + length
        self._waits = not is_elsewhere()

    async def ready(self) -> None:
        """Waits until the first byte can be read, or there is none; raises what broke the spool."""
        spool = self._spool
        while True:
            if self._at_end() or self.position < spool.released:
                return
            if spool.finished:
                return
            if spool.error is not None:
                raise spool.error
            if spool.doubt is not None and not self._waits:
                raise spool.doubt
            await spool._changed()

    async def __anext__(self) -> bytes:
        await self.ready()
        limit = self._spool.released - self.position
        if self._end is not None:
            limit = min(limit, self._end - self.position)
        if limit <= 0:
            raise StopAsyncIteration
        piece = await self._spool.read(self.position, limit)
        self.position += len(piece)
        if self._spool.passing:
            # The writer may be waiting for this very reader.
            self._spool._wake()
        return piece

    async def aclose(self) -> None:
        await self._spool._leave(self)

    def _at_end(self) -> bool:
        return self._end is not None and self.position >= self._end


def _unnamed_file(directory: Path) -> int:
    descriptor, path = tempfile.mkstemp(dir=directory, prefix="spool-")
    os.unlink(path)
    return descriptor


def _write_all(descriptor: int, piece: bytes, position: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, position)
        view = view[written:]
        position += written
