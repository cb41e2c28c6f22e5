"""What a reader waits for: asked by whoever calls, answered by whoever makes him wait.

    with watching(show, every=0.5):
        info = await store.path_infos.get(path_hash)

`show` is called with a `Progress` for each thing that the calls inside wait for: when they begin
to, at each change of its phase, every so often meanwhile, and when it is over.

The context says on whose behalf something is waited for. Work that several callers share runs in a
context of its own; it has `Waits`, which those who wait for it join.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Self

from tvixstore.activity.work import ENDS, Phase, Work
from tvixstore.errors import StoreError
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


@dataclass(slots=True)
class _Held:
    """How often one piece of work is waited for, and whether it was found under way."""

    count: int
    joined: bool


class Waits:
    """What is waited for on behalf of those who have joined."""

    __slots__ = ("_above", "_works")

    def __init__(self) -> None:
        self._works: dict[Work, _Held] = {}
        self._above: list[tuple[Waits, bool]] = []

    def begin(self, work: Work, *, joined: bool) -> None:
        held = self._works.get(work)
        if held is not None:
            held.count += 1
        else:
            self._works[work] = _Held(1, joined)
            self._added(work, joined=joined)
        for above, late in self._above:
            above.begin(work, joined=joined or late)

    def end(self, work: Work) -> None:
        held = self._works.get(work)
        if held is not None:
            held.count -= 1
            if not held.count:
                del self._works[work]
                self._removed(work)
        for above, _ in self._above:
            above.end(work)

    def joined_by(self, above: Waits | None, *, late: bool) -> _Joined:
        """`above` waits for all of it meanwhile; `late` if it was under way before."""
        return _Joined(self, above, late)

    def _join(self, above: Waits, late: bool) -> None:
        self._above.append((above, late))
        for work, held in self._works.items():
            for _ in range(held.count):
                above.begin(work, joined=held.joined or late)

    def _leave(self, above: Waits, late: bool) -> None:
        self._above.remove((above, late))
        for work, held in self._works.items():
            for _ in range(held.count):
                above.end(work)

    def inside(self, context: contextvars.Context) -> contextvars.Context:
        """`context`, in which everything is waited for on behalf of those who have joined."""
        context.run(_waits.set, self)
        return context

    def _added(self, work: Work, *, joined: bool) -> None:
        """For whoever tells of it."""

    def _removed(self, work: Work) -> None:
        """For whoever tells of it."""


class _Joined:
    """What `Waits.joined_by` returns: a class, as each lookup pays for it."""

    __slots__ = ("_above", "_late", "_waits")

    def __init__(self, waits: Waits, above: Waits | None, late: bool) -> None:
        self._waits = waits
        self._above = above
        self._late = late

    def __enter__(self) -> None:
        if self._above is not None:
            self._waits._join(self._above, self._late)

    def __exit__(self, *_: object) -> None:
        if self._above is not None:
            self._waits._leave(self._above, self._late)


_waits: ContextVar[Waits | None] = ContextVar("waits", default=None)


def waited_for() -> Waits | None:
    """On whose behalf the running code works; `None` if nobody watches."""
    return _waits.get()


class Following:
    """Some callers waiting for one piece of work, until `close`."""

    __slots__ = ("_waits", "_work")

    def __init__(self, waits: Waits, work: Work, *, joined: bool) -> None:
        self._waits: Waits | None = waits
        self._work = work
        waits.begin(work, joined=joined)

    def close(self) -> None:
        waits, self._waits = self._waits, None
        if waits is not None:
            waits.end(self._work)


def follow(work: Work, *, joined: bool) -> Following | None:
    """From now on the caller waits for `work`; `None` if nobody watches that."""
    waits = _waits.get()
    return None if waits is None else Following(waits, work, joined=joined)


@contextmanager
def following(work: Work, *, joined: bool) -> Iterator[None]:
    """The caller waits for `work` inside."""
    follows = follow(work, joined=joined)
    try:
        yield
    finally:
        if follows is not None:
            follows.close()


class Waiting:
    """The caller waits inside for something that nobody else does; an error is its end.

    Costs a look at the context where nobody watches.
    """

    __slots__ = ("_follows", "_of", "_work")

    def __init__(
        self,
        kind: str,
        what: object,
        source: str,
        phase: Phase = "asking",
        reason: str | None = None,
    ) -> None:
        self._of = kind, what, source, phase, reason
        self._work: Work | None = None
        self._follows: Following | None = None

    def __enter__(self) -> Self:
        waits = _waits.get()
        if waits is not None:
            kind, what, source, phase, reason = self._of
            self._work = Work(kind, str(what), source, phase=phase)
            self._work.reason = reason
            self._follows = Following(waits, self._work, joined=False)
        return self

    def absent(self) -> None:
        """What was asked for is not there."""
        if self._work is not None:
            self._work.enter("absent")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._work is None or self._follows is None:
            return
        if error is None:
            self._work.enter("done")
        elif isinstance(error, StoreError | OSError):
            self._work.enter("failed", str(error))
        else:
            self._work.enter("cancelled")
        self._follows.close()


def note(kind: str, source: str, phase: Phase, reason: str) -> None:
    """Tells whoever watches of something that is over in the same moment."""
    if (waits := _waits.get()) is not None:
        work = Work(kind, "", source)
        work.enter(phase, reason)
        waits.begin(work, joined=False)
        waits.end(work)


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
    outer = _waits.get()
    token = _waits.set(watcher)
    try:
        with watcher.joined_by(outer, late=False):
            yield
    finally:
        _waits.reset(token)
        watcher.close()
