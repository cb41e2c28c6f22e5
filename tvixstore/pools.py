"""Threads for what would block the loop: one bounded pool a kind of work.

DNS, files and CPU work (decompression, hashing of large data) have a pool each, so that six stuck
DNS lookups cannot stop the disk. CPU work that no client waits for, cutting and compressing what is
to be stored, has another: a NAR that arrives would otherwise queue behind those that have arrived.
The thread that writes to LMDB belongs to its engine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

# What the names of all pools' threads begin with.
THREAD_PREFIX = "tvixstore-"

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Pool:
    """`threads` threads, and at most `queue` calls that wait for one; others wait in the loop."""

    def __init__(self, name: str, threads: int, queue: int = 64) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"{THREAD_PREFIX}{name}")
        self._slots = asyncio.Semaphore(threads + queue)

    async def run(
        self,
        function: Callable[[*Arguments], Result],
        *arguments: *Arguments,
    ) -> Result:
        """Calls `function` in a thread.

        A cancelled caller leaves only when the function is over: whatever it worked on (a file
        descriptor, a buffer) may be closed or reused right after.
        """
        async with self._slots:
            work = self._executor.submit(function, *arguments)
            waiter = asyncio.wrap_future(work)
            try:
                return await asyncio.shield(waiter)
            except asyncio.CancelledError:
                work.cancel()
                await _outwait(waiter)
                raise

    async def abandon(
        self,
        function: Callable[[*Arguments], Result],
        *arguments: *Arguments,
    ) -> Result:
        """As `run`, but a cancelled caller leaves at once: for calls that share nothing (DNS)."""
        async with self._slots:
            return await asyncio.wrap_future(self._executor.submit(function, *arguments))

    def close(self, *, wait: bool = True) -> None:
        """Ends the threads; calls that have not begun are dropped."""
        self._executor.shutdown(wait=wait, cancel_futures=True)


async def _outwait(waiter: asyncio.Future[Result]) -> None:
    while not waiter.done():
        try:
            await asyncio.wait([waiter])
        except asyncio.CancelledError:
            # Cancelled once more while waiting: the thread still has to come home first.
            continue
    if not waiter.cancelled():
        # Seen, so that asyncio does not report it as never retrieved; the caller is leaving.
        waiter.exception()


class Pools:
    """The pools of one composition; its composer closes them last."""

    def __init__(self, *, files: int = 8, cpu: int | None = None, dns: int = 4) -> None:
        self.files = Pool("files", files)
        cores = os.cpu_count() or 2
        self.cpu = Pool("cpu", cpu or cores)
        # What is being stored leaves the other half of the processors to those who wait.
        self.background = Pool("background", max(1, cores // 2))
        self.dns = Pool("dns", dns)

    def close(self) -> None:
        self.files.close()
        self.cpu.close()
        self.background.close()
        # A lookup can hang for minutes in the resolver; it holds nothing that must be put back.
        self.dns.close(wait=False)
