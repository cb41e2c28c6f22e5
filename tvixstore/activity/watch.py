"""Watching: snapshots at the watcher's pace, until the door is about to close."""

from __future__ import annotations

import asyncio
from typing import Final, Self

from tvixstore.activity.registry import MOST_WATCHERS, Activity

# Seconds from one snapshot to the next. A peer that hears nothing for 30 s thinks nobody is there.
SHORTEST: Final = 0.2
LONGEST: Final = 20.0


class Watch:
    """One who watches, at a door that sets `ended`.

    Nothing is kept for him: who is slow to take one snapshot is given the next as it is then.
    """

    def __init__(self, activity: Activity, door: str, ended: asyncio.Event) -> None:
        self._activity = activity
        self._door = door
        self._ended = ended
        self._open = True
        activity.watchers[door] += 1

    @classmethod
    def begin(cls, activity: Activity, door: str, ended: asyncio.Event) -> Watch | None:
        """`None` if there are too many of them. Whoever has it closes it."""
        if activity.watchers.total() >= MOST_WATCHERS:
            return None
        return cls(activity, door, ended)

    async def text(self) -> str:
        return await self._activity.text()

    async def ended_within(self, seconds: float) -> bool:
        """Waits for so long, or until the door is about to close; whether it is."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        if self._open:
            self._open = False
            self._activity.watchers[self._door] -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
