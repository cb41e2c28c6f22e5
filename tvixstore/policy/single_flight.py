"""Single flight: whoever wants the same thing at the same time shares one piece of work.

The work runs in a task of the table, in a context of its own, so that the first caller's deadline
or departure is nobody else's. It is cancelled only when all of its callers have left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tvixstore.activity import Waits, waited_for
from tvixstore.errors import Unavailable
from tvixstore.policy import tasks
from tvixstore.policy.tracing import Step, apart, is_told, note, shared, take_in

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Flight(Generic[Result]):
    task: asyncio.Task[Result]
    # What it waits for, its callers wait for.
    waits: Waits
    # What is told of it, if whoever began it is told of.
    step: Step | None
    callers: int = 0


class SingleFlight(Generic[Key, Result]):
    """The pieces of work under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[Key, _Flight[Result]] = {}
        self._tasks: set[asyncio.Task[Result]] = set()

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """What `work` returns or raises, or the work that is under way for `key` already."""
        flight = self._flights.get(key)
        late = flight is not None
        if flight is None:
            step = shared() if is_told() else None
            waits = Waits()
            task = self._start(key, work, waits, step)
            flight = self._flights[key] = _Flight(task, waits, step)
        else:
            note("joined", "joined the same question of somebody else, which was under way")
        take_in(flight.step)
        flight.callers += 1
        try:
            with flight.waits.joined_by(waited_for(), late=late):
                await tasks.over(flight.task)
        finally:
            flight.callers -= 1
            if flight.callers == 0 and not flight.task.done():
                # Whoever comes now starts anew instead of joining what is being cancelled.
                self._land(key, flight.task)
                await tasks.end([flight.task])
        if flight.task.cancelled():
            # Not this caller was cancelled but the table was closed.
            raise Unavailable("stopped: the service is shutting down")
        return flight.task.result()

    async def aclose(self) -> None:
        """Cancels all work; its callers get `Unavailable`."""
        await tasks.end(list(self._tasks))

    def _start(
        self,
        key: Key,
        work: Callable[[], Coroutine[Any, Any, Result]],
        waits: Waits,
        step: Step | None,
    ) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(
            work(), name="single flight", context=waits.inside(apart(step))
        )
        self._tasks.add(task)

        def over(task: asyncio.Task[Result]) -> None:
            if not task.cancelled():
                # Seen: its last caller may have been cancelled in the moment in which it failed.
                task.exception()
            self._tasks.discard(task)
            self._land(key, task)
            if not task.cancelled():
                # The last caller may leave in the very moment in which the work fails. Then nobody
                # looks at why, and asyncio must not complain of that.
                task.exception()

        task.add_done_callback(over)
        return task

    def _land(self, key: Key, task: asyncio.Task[Result]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
