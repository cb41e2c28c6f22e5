"""Everything that is under way in one process, and snapshots of it, in the one form that they have.

`docs/operating.md` says what is in a snapshot.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from tvixstore.activity.work import Rate, Work
from tvixstore.log import redact

# Pieces of work that a snapshot tells of one by one, and names of upstreams that are down.
MOST_LISTED: Final = 200
_MOST_DOWN: Final = 50
# Those who watch at a time, at all doors.
MOST_WATCHERS: Final = 32
# Pieces of work that are measured, and told of, before others in the loop get their turn.
_MEASURED_A_TURN: Final = 200
_TOLD_A_TURN: Final = 50
# A snapshot younger than this many seconds is given to whoever else asks for one.
_SHARED: Final = 0.1


Item = TypeVar("Item")


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
        self._making = asyncio.Lock()
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

    async def text(self) -> str:
        """A snapshot as one line of JSON, at most a moment old."""
        async with self._making:
            now = asyncio.get_running_loop().time()
            if now - self._taken >= _SHARED:
                self._text = await self._make_text()
                self._taken = now
        return self._text

    def snapshot(self) -> dict[str, Any]:
        """What is under way just now, taken in one go."""
        told, listed = self._told_in_turns(), list[dict[str, Any]]()
        while True:
            try:
                listed += next(told)
            except StopIteration as end:
                return {**end.value, "fills": listed}

    async def _make_text(self) -> str:
        told, listed = self._told_in_turns(), list[str]()
        while True:
            try:
                listed += [_json(each) for each in next(told)]
            except StopIteration as end:
                return f'{_json(end.value)[:-1]},"fills":[{",".join(listed)}]}}'
            # Of a thousand fills this takes more than a millisecond in all.
            await asyncio.sleep(0)

    def _told_in_turns(self) -> Generator[list[dict[str, Any]], None, dict[str, Any]]:
        """What a snapshot tells of each, some at a time, and what it tells of all of them."""
        now, unix = asyncio.get_running_loop().time(), time.time()
        works, total = list(self._works.values()), self._done
        listed: list[_Rated] = []
        for some in _in_slices(works, _MEASURED_A_TURN):
            measured = [(work, work.measured()) for work in some]
            total += sum(done for _, (done, _, _) in measured)
            rated = [_Rated(work.rate_of(now, m[0]), work, m) for work, m in measured]
            # The fastest first, then those that are at it for longest.
            listed = heapq.nsmallest(MOST_LISTED, [*listed, *rated], key=_Rated.place)
            yield []
        for fastest in _in_slices(listed, _TOLD_A_TURN):
            yield [each.told(unix - now) for each in fastest]
        states = list(self.upstreams())
        down = [state.name for state in states if not state.up]
        return {
            "time": round(unix, 3),
            "left_out": len(works) - len(listed),
            "totals": {
                "fills": len(works),
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


class _Rated(NamedTuple):
    """A piece of work, how fast it is, and what it has measured."""

    rate: float
    work: Work
    measured: tuple[int, int | None, int]

    def place(self) -> tuple[float, int]:
        return -self.rate, self.work.number

    def told(self, to_unix: float) -> dict[str, Any]:
        work, (done, total, readers) = self.work, self.measured
        return {
            "id": work.number,
            "kind": work.kind,
            "what": work.what,
            "source": work.source,
            "phase": work.phase,
            "reason": None if work.reason is None else redact(work.reason),
            "bytes": done,
            "total": total,
            "rate": round(self.rate),
            "readers": readers,
            "started": round(work.started + to_unix, 3),
        }


def _in_slices(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
