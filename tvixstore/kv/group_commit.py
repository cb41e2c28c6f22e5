"""One thread that writes, and takes everything that waits for it in one go.

Callers `submit` an item each and get its outcome once the group that it went with is committed.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from tvixstore.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# Items that may wait for the thread; more wait in the loop.
MAX_WAITING = 1024


class _Waiting(Generic[Item, Outcome]):
    """An item, how much it weighs, and who waits for its outcome."""

    def __init__(self, item: Item, weight: int, future: asyncio.Future[Outcome]) -> None:
        self.item = item
        self.weight = weight
        self.future = future


class GroupCommit(Generic[Item, Outcome]):
    """Calls `commit` in its thread with the items that wait, up to a total weight of `max_weight`.

    `commit` returns an outcome, or an exception, for each of its items. Submitting, and closing,
    is for one event loop.
    """

    def __init__(
        self,
        name: str,
        commit: Callable[[list[Item]], list[Outcome | Exception]],
        max_weight: int,
    ) -> None:
        self._name = name
        self._commit = commit
        self._max_weight = max_weight
        self._queue: queue.SimpleQueue[_Waiting[Item, Outcome] | None] = queue.SimpleQueue()
        self._slots = asyncio.Semaphore(MAX_WAITING)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._closed = False

    async def submit(self, item: Item, weight: int) -> Outcome:
        """The item's outcome. A caller who is cancelled leaves at once.

        Its item is then left out if its group has not begun, and otherwise written like the others.
        """
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
            raise Unavailable(f"{self._name} is closed")
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            # A daemon thread: a process that exits without closing is not held up. What it had not
            # committed then is not there, as after a kill.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.put(_Waiting(item, weight, future))
        return await future

    async def aclose(self) -> None:
        """Commits what waits and ends the thread."""
        self._closed = True
        if self._thread is None:
            return
        if self._stopped is None:
            self._stopped = asyncio.get_running_loop().create_future()
            self._queue.put(None)
        try:
            await asyncio.shield(self._stopped)
        finally:
            # Cancelled, this waits for the group under way: nobody may close what it writes to.
            self._thread.join()

    def _run(self) -> None:
        assert self._loop is not None
        running = True
        while running:
            first = self._queue.get()
            if first is None:
                break
            group = [first]
            weight = first.weight
            while weight < self._max_weight:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    running = False
                    break
                group.append(following)
                weight += following.weight
            outcomes = self._outcomes([one for one in group if not one.future.cancelled()])
            if not self._tell(self._settle, group, outcomes):
                return
        self._tell(self._stop)

    def _outcomes(
        self, live: list[_Waiting[Item, Outcome]]
    ) -> dict[asyncio.Future[Outcome], Outcome | Exception]:
        if not live:
            return {}
        try:
            outcomes = self._commit([one.item for one in live])
        except Exception as error:
            # The thread outlives whatever `commit` did not expect; its callers get to see it.
            outcomes = [error] * len(live)
        return {one.future: outcome for one, outcome in zip(live, outcomes, strict=True)}

    def _tell(self, *call: object) -> bool:
        """Calls back in the loop; false if that loop is closed, and nobody waits any more."""
        function, *arguments = call
        assert self._loop is not None and callable(function)
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    def _settle(
        self,
        group: list[_Waiting[Item, Outcome]],
        outcomes: dict[asyncio.Future[Outcome], Outcome | Exception],
    ) -> None:
        for one in group:
            self._slots.release()
            if one.future.done():
                continue
            outcome = outcomes[one.future]
            if isinstance(outcome, Exception):
                one.future.set_exception(outcome)
            else:
                one.future.set_result(outcome)

    def _stop(self) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)
