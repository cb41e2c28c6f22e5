"""Writes that may come late: collected, and written in batches by one task.

For what is worth keeping and not worth waiting for: when a path was last read, what an upstream
said. A write that fails is counted and forgotten, so a full disk never hurts whoever remembered.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Generic, TypeVar

from tvixstore.errors import StorageFull
from tvixstore.log import Logger

Key = TypeVar("Key")
Value = TypeVar("Value")

_log = Logger(__name__)

# Batches that may wait while one is being written; beyond that, new keys are dropped.
_WAITING_BATCHES = 20


class WriteBehind(Generic[Key, Value]):
    """Hands what was `put` to `write`, `batch` keys at a time, or fewer after `delay` seconds.

    Its task lives while there is something to write; `aclose` writes the rest and ends it.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Mapping[Key, Value]], Awaitable[None]],
        *,
        delay: float,
        batch: int,
    ) -> None:
        self._name = name
        self._write = write
        self._delay = delay
        self._batch = batch
        self._pending: dict[Key, Value] = {}
        self._writing: dict[Key, Value] = {}
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._failing = False
        # Keys that were not written: the write failed, or too many waited already.
        self.dropped = 0

    def get(self, key: Key) -> Value | None:
        """What waits to be written for `key`."""
        value = self._pending.get(key)
        return self._writing.get(key) if value is None else value

    def waiting(self) -> list[tuple[Key, Value]]:
        """What is not written yet."""
        return list({**self._writing, **self._pending}.items())

    def put(self, key: Key, value: Value) -> None:
        """Has `value` written sometime; the last one for a key wins. Nothing after `aclose`."""
        full = len(self._pending) >= self._batch * _WAITING_BATCHES and key not in self._pending
        if self._closed or full:
            self.dropped += 1
            return
        self._pending[key] = value
        if len(self._pending) >= self._batch:
            self._due.set()
        if self._task is None or self._task.done():
            # A fresh context: the task outlives the call, and its deadline, that started it.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"write-behind {self._name}", context=contextvars.Context()
            )

    async def aclose(self) -> None:
        """Writes what waits. May be called twice."""
        self._closed = True
        self._due.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._pending:
            if not self._closed:
                await self._wait()
            keys = list(islice(self._pending, self._batch))
            self._writing = {key: self._pending.pop(key) for key in keys}
            try:
                await self._write(self._writing)
            except Exception as error:
                self._failed(error)
            else:
                if self._failing:
                    self._failing = False
                    _log.info("write_behind.recovered", table=self._name, dropped=self.dropped)
            finally:
                self._writing = {}

    async def _wait(self) -> None:
        self._due.clear()
        if len(self._pending) >= self._batch:
            return
        try:
            async with asyncio.timeout(self._delay):
                await self._due.wait()
        except TimeoutError:
            # The usual case: few keys, and their time has come.
            return

    def _failed(self, error: Exception) -> None:
        self.dropped += len(self._writing)
        # Said when it begins and when it is over, not once a batch.
        if not self._failing:
            self._failing = True
            # Of a full disk whoever guards it warns, once for everybody.
            if isinstance(error, StorageFull):
                _log.info("write_behind.failed", table=self._name, reason=error)
            else:
                _log.warning("write_behind.failed", table=self._name, reason=error)
