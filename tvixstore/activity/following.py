"""What makes callers wait says so here: of work that has its own record, or of one for them alone.

All of it costs a look at the context where nobody watches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tvixstore.activity.waits import WAITS, Waits
from tvixstore.activity.work import Phase, Work
from tvixstore.errors import StoreError


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
    waits = WAITS.get()
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
    """The caller waits inside for something that nobody else does; an error is its end."""

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
        waits = WAITS.get()
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
    if (waits := WAITS.get()) is not None:
        work = Work(kind, "", source)
        work.enter(phase, reason)
        waits.begin(work, joined=False)
        waits.end(work)
