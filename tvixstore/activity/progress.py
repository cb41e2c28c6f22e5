"""What a reader waits for, told to whoever asks.

    with watching(show, every=0.5):
        info = await store.path_infos.get(path_hash)

`show` is called with a `Progress` for each thing that the calls inside wait for: when they begin
to, at each change of its phase, every so often meanwhile, and when it is over.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tvixstore.activity.waits import WAITS, Waits
from tvixstore.activity.work import ENDS, Phase, Work
from tvixstore.log import Logger, redact

# Seconds; more often would cost more than it tells.
SHORTEST_EVERY: Final = 0.05

log = Logger("tvixstore.activity")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is that a caller waits for. `docs/embedding.md` has the words."""

    # nar, blob, closure; lookup, turn, retry, breaker.
    kind: str
    # A store path, a digest, the hash of a path; of a retry or a breaker, nothing.
    what: str
    # The node or upstream that it comes from.
    source: str
    phase: Phase
    # Why, where there is something to be said: what failed before a pause, or in the end.
    reason: str | None
    bytes: int
    # `None` if nobody knows yet.
    total: int | None
    # Bytes a second.
    rate: float
    # Seconds since these calls began to wait for it.
    waiting: float
    # How many follow it altogether.
    readers: int
    # Whether it was under way for somebody else when these calls began to wait for it.
    joined: bool

    @property
    def over(self) -> bool:
        """Whether this is the last that is heard of it."""
        return self.phase in ENDS


class _Watcher(Waits):
    """Tells `callback` of what is waited for. Its timer runs only while something is."""

    __slots__ = (
        "_callback",
        "_context",
        "_every",
        "_loop",
        "_pending",
        "_since",
        "_soon",
        "_timer",
    )

    def __init__(self, callback: Callable[[Progress], None], every: float) -> None:
        super().__init__()
        self._callback: Callable[[Progress], None] | None = callback
        self._every = max(every, SHORTEST_EVERY)
        self._loop = asyncio.get_running_loop()
        # The callback's: what it asks the store itself is not told to it.
        self._context = contextvars.copy_context()
        # Since when each is waited for, and whether it was found under way.
        self._since: dict[Work, tuple[float, bool]] = {}
        # Told in a moment, from the loop: a callback does not run within what it hears of.
        self._pending: deque[Progress] = deque()
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Tells what is still to be told, and nothing after that."""
        for work in list(self._works):
            self._removed(work)
        self._works.clear()
        self._tell()
        self._callback = None
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()

    def _added(self, work: Work, *, joined: bool) -> None:
        if self._callback is None:
            return
        self._since[work] = self._loop.time(), joined
        work.listen(self._changed)
        self._changed(work)
        if self._timer is None:
            self._look_later()

    def _removed(self, work: Work) -> None:
        work.unlisten(self._changed)
        if work in self._since:
            if not work.over:
                self._put(work, "left")
            del self._since[work]

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(self._every, self._look, context=self._context)

    def _look(self) -> None:
        self._timer = None
        running = [work for work in self._since if not work.over]
        for work in running:
            self._changed(work)
        if running:
            self._look_later()

    def _changed(self, work: Work) -> None:
        self._put(work, work.phase)

    def _put(self, work: Work, phase: Phase) -> None:
        if self._callback is None:
            return
        now = self._loop.time()
        since, joined = self._since[work]
        done, total, readers = work.measured()
        self._pending.append(
            Progress(
                kind=work.kind,
                what=work.what,
                source=work.source,
                phase=phase,
                reason=None if work.reason is None else redact(work.reason),
                bytes=done,
                total=total,
                rate=work.rate(now),
                waiting=now - since,
                readers=readers,
                joined=joined,
            )
        )
        if self._soon is None:
            self._soon = self._loop.call_soon(self._tell, context=self._context)

    def _tell(self) -> None:
        self._soon = None
        while self._pending and self._callback is not None:
            progress = self._pending.popleft()
            try:
                self._callback(progress)
            except Exception as error:
                # It is the caller's, and nobody here is to suffer from it.
                log.error("progress.dropped", exc_info=error, key=progress.what)
                self._callback = None
        self._pending.clear()


@contextmanager
def watching(callback: Callable[[Progress], None], every: float = 0.5) -> Iterator[None]:
    """Has `callback` told of what the calls inside wait for; see `tvixstore.progress`."""
    watcher = _Watcher(callback, every)
    outer = WAITS.get()
    token = WAITS.set(watcher)
    try:
        with watcher.joined_by(outer, late=False):
            yield
    finally:
        WAITS.reset(token)
        watcher.close()
