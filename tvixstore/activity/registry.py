"""Everything that is under way in one process, and snapshots of it, in the one form that they have.

`docs/operating.md` says what is in a snapshot.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Final, Protocol

from tvixstore.activity.work import Rate, Work
from tvixstore.log import redact

# Pieces of work that a snapshot tells of one by one, and names of upstreams that are down.
MOST_LISTED: Final = 200
_MOST_DOWN: Final = 50
# Those who watch at a time, at all doors.
MOST_WATCHERS: Final = 32
# A snapshot younger than this many seconds is given to whoever else asks for one.
_SHARED: Final = 0.1


class UpstreamState(Protocol):
    """One upstream, as far as it matters here."""

    @property
    def name(self) -> str: ...
    @property
    def up(self) -> bool: ...


def _none() -> Iterable[UpstreamState]:
    return ()


class Activity:
    """What is under way in one event loop, whose thread alone uses it."""

    def __init__(self) -> None:
        # By door: how many requests are under way there, those that watch included.
        self.requests: dict[str, Callable[[], int]] = {}
        self.upstreams: Callable[[], Iterable[UpstreamState]] = _none
        # Those who watch, by door.
        self.watchers: Counter[str] = Counter()
        self._numbers = count(1)
        self._works: dict[int, Work] = {}
        # Bytes of what is over; and how fast all of them come, from the first work on.
        self._done = 0
        self._rate: Rate | None = None
        self._text = ""
        self._taken = float("-inf")

    def __len__(self) -> int:
        return len(self._works)

    def begin(self, work: Work) -> Work:
        """Shows `work` until it has ended."""
        if self._rate is None:
            self._rate = Rate(work.started)
        work.number = next(self._numbers)
        work.on_end = self._ended
        self._works[work.number] = work
        return work

    def text(self) -> str:
        """A snapshot as one line of JSON, at most a moment old."""
        now = asyncio.get_running_loop().time()
        if now - self._taken >= _SHARED:
            self._text = json.dumps(self.snapshot(), ensure_ascii=False, separators=(",", ":"))
            self._taken = now
        return self._text

    def snapshot(self) -> dict[str, Any]:
        """What is under way just now."""
        now, unix = asyncio.get_running_loop().time(), time.time()
        rated = [(work.rate(now), work) for work in self._works.values()]
        # The fastest first, then those that are at it for longest.
        listed = heapq.nsmallest(MOST_LISTED, rated, key=lambda each: (-each[0], each[1].number))
        total = self._done + sum(work.measured()[0] for work in self._works.values())
        states = list(self.upstreams())
        down = [state.name for state in states if not state.up]
        return {
            "time": round(unix, 3),
            "fills": [_told(work, rate, unix - now) for rate, work in listed],
            "left_out": len(rated) - len(listed),
            "totals": {
                "fills": len(rated),
                "bytes": total,
                "rate": 0 if self._rate is None else round(self._rate.at(now, total)),
                "requests": {
                    door: max(0, running() - self.watchers[door])
                    for door, running in self.requests.items()
                },
                "watchers": self.watchers.total(),
                "upstreams_up": len(states) - len(down),
                "upstreams_down": len(down),
            },
            "down": down[:_MOST_DOWN],
        }

    def _ended(self, work: Work) -> None:
        if self._works.pop(work.number, None) is not None:
            self._done += work.measured()[0]


def _told(work: Work, rate: float, to_unix: float) -> dict[str, Any]:
    done, total, readers = work.measured()
    return {
        "id": work.number,
        "kind": work.kind,
        "what": work.what,
        "source": work.source,
        "phase": work.phase,
        "reason": None if work.reason is None else redact(work.reason),
        "bytes": done,
        "total": total,
        "rate": round(rate),
        "readers": readers,
        "started": round(work.started + to_unix, 3),
    }
