"""Carrying a call through to its end, whoever stops waiting for it.

Whoever loses each race is cancelled each time, and nobody learns whether it is slow or down: a
black hole beside a fast member would be asked, for nothing, for ever. So of whom nothing was heard
for a while, one call at a time goes on when its caller leaves, for the breaker to hear how it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tvixstore.errors import Unavailable
from tvixstore.policy import tasks
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.deadline import remaining, unhurried
from tvixstore.policy.timeout import Hurried
from tvixstore.policy.tracing import apart, here

if TYPE_CHECKING:
    from contextvars import Context

Result = TypeVar("Result")


@dataclass(eq=False)
class Carrying:
    """Carries calls that pass through `breaker`: probes, and one at a time when there was no
    answer for `silence` seconds.

    The calls have to end by themselves, as one does that has a timeout.
    """

    breaker: Breaker
    silence: float = 3.0
    _task: asyncio.Task[Any] | None = field(default=None, init=False, repr=False)

    async def run(self, call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """What `call` returns or raises; `Hurried` if the caller's deadline comes before that."""
        if self._task is not None or not self._decides():
            return await call()
        # Whoever asks may have a moment left, which says nothing of how long the service may take,
        # and would be counted against it.
        task = self._begin(call, unhurried())
        left = remaining()
        done, _ = await asyncio.wait([task], timeout=left)
        if not done:
            raise Hurried(f"no answer within {left:.3g} s")
        if task.cancelled():
            raise Unavailable("stopped: the service is shutting down")
        return task.result()

    def begin_probe(self, call: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Whether a probe of the open breaker is due: then `call` is made, unless there is one, and
        nobody waits."""
        if not self.breaker.probe_is_due:
            return False
        # What was begun a moment ago, and has not come to the breaker yet, is the probe.
        if self._task is None:
            self._begin(call, apart(here()))
        return True

    async def aclose(self) -> None:
        """Cancels the call that is carried; whoever waits for it gets `Unavailable`."""
        if self._task is not None:
            await tasks.end([self._task])

    def _decides(self) -> bool:
        """Whether what becomes of the next call is news."""
        breaker = self.breaker
        return breaker.probe_is_due if breaker.is_open else not breaker.heard_within(self.silence)

    def _begin(
        self, call: Callable[[], Coroutine[Any, Any, Result]], context: Context
    ) -> asyncio.Task[Result]:
        self._task = task = asyncio.get_running_loop().create_task(
            call(), name="carried call", context=context
        )
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if not task.cancelled():
            # Seen: its caller may have left, and the breaker knows.
            task.exception()
