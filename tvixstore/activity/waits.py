"""On whose behalf something is waited for: the context says it.

Work that several callers share runs in a context of its own; it has `Waits`, which those who wait
for it join.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from tvixstore.activity.work import Work


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

    @contextmanager
    def joined_by(self, above: Waits | None, *, late: bool) -> Iterator[None]:
        """`above` waits for all of it meanwhile; `late` if it was under way before."""
        if above is None:
            yield
            return
        entry = (above, late)
        self._above.append(entry)
        for work, held in self._works.items():
            for _ in range(held.count):
                above.begin(work, joined=held.joined or late)
        try:
            yield
        finally:
            self._above.remove(entry)
            for work, held in self._works.items():
                for _ in range(held.count):
                    above.end(work)

    def inside(self, context: contextvars.Context) -> contextvars.Context:
        """`context`, in which everything is waited for on behalf of those who have joined."""
        context.run(WAITS.set, self)
        return context

    def _added(self, work: Work, *, joined: bool) -> None:
        """For whoever tells of it."""

    def _removed(self, work: Work) -> None:
        """For whoever tells of it."""


# On whose behalf the code of a context works.
WAITS: Final[ContextVar[Waits | None]] = ContextVar("waits", default=None)


def waited_for() -> Waits | None:
    """On whose behalf the running code works; `None` if nobody watches."""
    return WAITS.get()
