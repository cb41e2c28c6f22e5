"""Clients that neither send nor take: one look at all calls now and then, not a timer for each."""

from __future__ import annotations

import asyncio
from typing import Any

from tvixstore.rpc.server.call import Call
from tvixstore.rpc.server.refusals import Refusal

# Looks in the time for which a client may stall.
_LOOKS = 4


class RunningCalls:
    """The calls that run, by their tasks; one whose client stalls is cancelled."""

    def __init__(self, stall: float) -> None:
        self._calls: dict[asyncio.Task[Refusal | None], Call[Any, Any]] = {}
        self._interval = stall / _LOOKS
        self._timer: asyncio.TimerHandle | None = None

    @property
    def tasks(self) -> set[asyncio.Task[Refusal | None]]:
        return set(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, task: asyncio.Task[Refusal | None], call: Call[Any, Any]) -> None:
        self._calls[task] = call
        if self._timer is None:
            self._look_later()

    def remove(self, task: asyncio.Task[Refusal | None]) -> None:
        del self._calls[task]

    def close(self) -> None:
        """No more looks; no call runs any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        for task, call in self._calls.items():
            if call.give_up_if_stalled():
                task.cancel()
        if self._calls:
            self._look_later()
