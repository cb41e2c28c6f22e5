"""A blob of several chunks as a stream: the next chunks are read while one is being sent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from tvixstore.policy.tasks import end
from tvixstore.streams import ByteStream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tvixstore.blob.chunk_list import Entry

# Chunks under way at once, the one being waited for included, and their bytes.
CHUNKS_AHEAD = 4
BYTES_AHEAD = 4 << 20


class ReadAhead(ByteStream):
    """The bytes of `entries`, without the first `skip` of them, and `length` at most.

    `load` gives the chunk of an entry, verified. The tasks that call it belong to the stream.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        load: Callable[[Entry], Coroutine[Any, Any, bytes]],
        skip: int,
        length: int,
        *,
        chunks_ahead: int = CHUNKS_AHEAD,
        bytes_ahead: int = BYTES_AHEAD,
    ) -> None:
        self._entries = entries
        self._most_chunks = chunks_ahead
        self._most_bytes = bytes_ahead
        self._load = load
        self._next = 0
        self._remaining = length
        # Bytes of the entries up to the end of those asked for.
        self._wanted = length
        while self._next < len(entries) and skip >= entries[self._next][1]:
            skip -= entries[self._next][1]
            self._next += 1
        self._skip = skip
        self._wanted += skip
        self._ahead: deque[tuple[int, asyncio.Task[bytes]]] = deque()
        self._bytes_ahead = 0

    async def __anext__(self) -> bytes:
        if self._remaining <= 0:
            raise StopAsyncIteration
        self._look_ahead()
        size, task = self._ahead[0]
        # Whoever is cancelled here may come back for the same chunk.
        data = await asyncio.shield(task)
        self._ahead.popleft()
        self._bytes_ahead -= size
        if self._skip or len(data) - self._skip > self._remaining:
            data = data[self._skip : self._skip + self._remaining]
            self._skip = 0
        self._remaining -= len(data)
        return data

    async def aclose(self) -> None:
        self._remaining = 0
        self._wanted = 0
        tasks = [task for _, task in self._ahead]
        self._ahead.clear()
        await end(tasks)

    def _look_ahead(self) -> None:
        while (
            self._wanted > 0
            and self._next < len(self._entries)
            and len(self._ahead) < self._most_chunks
            and (not self._ahead or self._bytes_ahead < self._most_bytes)
        ):
            entry = self._entries[self._next]
            self._next += 1
            self._wanted -= entry[1]
            self._bytes_ahead += entry[1]
            self._ahead.append((entry[1], asyncio.create_task(self._load(entry))))
