"""Fills: what is fetched once for everybody who wants it meanwhile, in a task of a table.

A fill belongs to its table, not to whoever asked first, and does not share that one's deadline.
When everybody has left it goes on if little is missing, and otherwise stops after a moment, in
which somebody may come back.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tvixstore.activity import Activity, Phase, Work
from tvixstore.errors import StoreError, Unavailable
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.policy.tasks import end
from tvixstore.policy.tracing import apart, here

Key = TypeVar("Key", bound=Hashable)
AnyFill = TypeVar("AnyFill", bound="Fill")

# Bytes that are still worth fetching for nobody, and the seconds until a longer fill is stopped.
FINISH_BELOW = 64 << 20
LINGER = 10.0

# How a fill ends that had something to fetch, by its outcome.
_ENDS: Mapping[str | None, Phase] = {
    "done": "done",
    "passed": "passed",
    "failed": "failed",
    "cancelled": "cancelled",
}

log = Logger("tvixstore.policy.filling")


class Fill(ABC):
    """One fill; `name` is what it fetches, in logs and errors: its kind, and the key of that.

    `source` is what it fetches from.
    """

    def __init__(self, name: str, source: str = "") -> None:
        self.name = name
        kind, _, what = name.partition(" ")
        self.work = Work(kind, what, source, self)
        self.error: StoreError | None = None
        self.over = False
        # It cannot be kept: there is only a window, and the fastest reader sets the pace.
        self.passing = False
        # It is being cancelled: too late to follow it.
        self.stopping = False
        self._task: asyncio.Task[None] | None = None
        self._waiting = 0
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        # Whether whoever began it follows it, so that the next one joins.
        self._begun = False

    @abstractmethod
    async def _fill(self) -> str | None:
        """Does the work and returns its outcome for the metrics: done, passed, or `None` if there
        was nothing to fetch. Raises what went wrong."""

    @abstractmethod
    def _left(self) -> int | None:
        """The bytes that are still to come, or `None` if nobody knows."""

    def _came(self) -> int:
        """The bytes that have come, where they are counted."""
        return 0

    @abstractmethod
    def _readers(self) -> int:
        """How many follow it."""

    @abstractmethod
    def _broken(self, error: StoreError) -> None:
        """`error` has ended it: tells those who read."""

    def measured(self) -> tuple[int, int | None, int]:
        """See `activity.Measured`."""
        done = self._came()
        left = self._left()
        # Whoever reads waits too, now and then.
        readers = max(self._readers(), self._waiting)
        return done, None if left is None else done + left, readers

    def is_joined(self) -> bool:
        """Whether the caller, who follows it from now on, found it under way."""
        joined, self._begun = self._begun, True
        return joined

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Waits; raises what went wrong if that comes first."""
        self._waiting += 1
        self.check_idle()
        try:
            while not is_so() and self.error is None:
                self._news.clear()
                await self._news.wait()
        finally:
            self._waiting -= 1
            self.check_idle()
        if not is_so() and self.error is not None:
            raise self.error

    def tell(self) -> None:
        """Has those who wait look again."""
        self._news.set()

    def check_idle(self) -> None:
        """Starts or stops the clock for a fill that nobody follows."""
        if self._followed() or self.over:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            delay = 0.0 if self.passing else LINGER
            self._timer = asyncio.get_running_loop().call_later(delay, self._stop_if_idle)

    def start(self, on_end: Callable[[str | None], None]) -> asyncio.Task[None]:
        """Begins; `on_end` hears of the outcome, also that of a task which never came to run."""
        outcome: list[str | None] = ["cancelled"]
        task = self._task = asyncio.get_running_loop().create_task(
            self._run(outcome), name=f"fill {self.name}", context=apart(here())
        )

        def over(_: asyncio.Task[None]) -> None:
            self._settle()
            self._end(outcome[0])
            on_end(outcome[0])

        task.add_done_callback(over)
        return task

    def _followed(self) -> bool:
        return bool(self._readers() or self._waiting)

    def _stop_if_idle(self) -> None:
        self._timer = None
        left = self._left()
        worth_it = left is not None and left <= FINISH_BELOW and not self.passing
        if not self.over and not self._followed() and not worth_it and self._task is not None:
            self.stopping = True
            self._task.cancel()

    async def _run(self, outcome: list[str | None]) -> None:
        self.work.enter("asking")
        try:
            outcome[0] = await self._fill()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            outcome[0] = "failed"
            self._fail(error)
        finally:
            self._settle()

    def _end(self, outcome: str | None) -> None:
        reason = None if self.error is None else str(self.error)
        self.work.enter(_ENDS.get(outcome, "absent"), reason)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, StoreError):
            self.error = error
        elif isinstance(error, OSError):
            self.error = Unavailable(f"{self.name}: {error}")
        else:
            log.error("fill.crashed", exc_info=error, key=self.name)
            self.error = Unavailable(f"{self.name}: internal error, see the log")
        self._broken(self.error)

    def _settle(self) -> None:
        """Lets nobody wait any longer."""
        if self.over:
            return
        self.over = True
        if self._task is not None and self.error is None and not self._is_whole():
            self.error = Unavailable(f"{self.name}: the fetch was stopped")
            self._broken(self.error)
        self.check_idle()
        self.tell()

    @abstractmethod
    def _is_whole(self) -> bool:
        """Whether readers have, or will find, all that there is."""


@dataclass(eq=False)
class Filling(Generic[Key, AnyFill]):
    """The fills under way, by what they fetch; `aclose` cancels them."""

    metrics: Metrics | None = None
    # Where those who look see what is under way.
    activity: Activity = field(default_factory=Activity)
    _running: dict[Key, AnyFill] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def running(self, key: Key) -> AnyFill | None:
        """The fill under way that can still succeed."""
        fill = self._running.get(key)
        if fill is None or fill.error is not None or fill.over or fill.stopping:
            return None
        return fill

    def start(self, key: Key, fill: AnyFill) -> None:
        self._running[key] = fill

        def on_end(outcome: str | None) -> None:
            self._tasks.discard(task)
            if self._running.get(key) is fill:
                del self._running[key]
            if self.metrics is not None:
                self.metrics.fills_running.dec()
                if outcome is not None:
                    self.metrics.fills.labels(outcome).inc()

        self.activity.begin(fill.work)
        task = fill.start(on_end)
        self._tasks.add(task)
        if self.metrics is not None:
            self.metrics.fills_running.inc()

    async def aclose(self) -> None:
        """Stops what is under way; who follows it gets `Unavailable`."""
        await end(list(self._tasks))
