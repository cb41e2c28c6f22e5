"""Trying again what could not be had, with pauses that spread callers out in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from tvixstore.errors import Incomplete, Skipped, StorageFull, Unavailable
from tvixstore.policy.deadline import remaining

Result = TypeVar("Result")

# Kinds of unknown that asking the same again cannot help.
_FINAL = (Skipped, Incomplete, StorageFull)


@dataclass(frozen=True, slots=True)
class Retry:
    """Up to `attempts` calls, as long as they raise `Unavailable`; delays in seconds.

    The pause before attempt n + 1 is random between 0 and `min_delay` · 2ⁿ⁻¹, at most `max_delay`
    ("full jitter": callers that failed together don't come back together). Where the failure says
    when to ask again, it is not asked sooner. If that does not fit before the caller's deadline
    (or, without one, into `max_delay`), its last error is raised at once.
    """

    attempts: int = 3
    min_delay: float = 0.1
    max_delay: float = 2.0
    random: Random = field(default_factory=Random, repr=False, compare=False)

    async def run(self, call: Callable[[], Awaitable[Result]]) -> Result:
        for attempt in range(1, self.attempts):
            try:
                return await call()
            except _FINAL:
                raise
            except Unavailable as error:
                pause = self._pause(attempt, error.retry_after)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
        return await call()

    def _pause(self, attempt: int, retry_after: float | None) -> float | None:
        """Seconds until the attempt after number `attempt`; `None` if they cannot be spared."""
        ceiling = min(self.max_delay, self.min_delay * 2 ** (attempt - 1))
        pause = max(self.random.uniform(0, ceiling), retry_after or 0.0)
        left = remaining()
        fits = pause <= self.max_delay if left is None else pause < left
        return pause if fits else None
