"""Trying again what could not be had, with pauses that spread callers out in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from tvixstore.activity import Waiting
from tvixstore.errors import (
    AbsentPath,
    ConfigError,
    CorruptData,
    Incomplete,
    InvalidData,
    ReadOnly,
    Skipped,
    StateInUse,
    StorageFull,
    StoreError,
    TooLong,
    TreeError,
    Unavailable,
    Unreachable,
    Unsupported,
    Untrusted,
)
from tvixstore.policy.deadline import attempt_limit, remaining
from tvixstore.policy.spool import Doubted, Overrun
from tvixstore.policy.timeout import Hurried, answer_within
from tvixstore.policy.tracing import Tell, spell, untold
from tvixstore.policy.verdict import NobodyKnows

Result = TypeVar("Result")

# Whether asking the same again may help: one row an error. A test sees to it that each has one.
# What is raised and is no `StoreError` (an error of the system, a bug) is never repeated.
RETRIED: Mapping[type[StoreError], bool] = {
    StoreError: False,
    # The same input is as wrong the next time.
    InvalidData: False,
    TooLong: False,
    TreeError: False,
    # Whoever lies or has lost something goes on doing so; somebody else may have it right.
    CorruptData: False,
    Untrusted: False,
    # Nobody could say just now: what retries are for.
    Unavailable: True,
    NobodyKnows: True,
    # Though it takes as long again: see `reconnects`.
    Unreachable: True,
    # A part is missing there, and asking for it does not bring it.
    Incomplete: False,
    # Room comes by eviction, not within seconds.
    StorageFull: False,
    # A breaker is open, and says itself when it may be asked again.
    Skipped: False,
    # The reader fell behind, and has to take another way.
    Overrun: False,
    # The caller has no time left.
    Hurried: False,
    # It is being tried again already.
    Doubted: False,
    ReadOnly: False,
    Unsupported: False,
    ConfigError: False,
    StateInUse: False,
    # Everybody was asked, and nobody has it.
    AbsentPath: False,
}


def is_retried(error: Exception) -> bool:
    """Whether asking the same again may help. Of kinds that have no row, the next above says."""
    return next((RETRIED[kind] for kind in type(error).__mro__ if kind in RETRIED), False)


@dataclass(frozen=True, slots=True)
class Retry:
    """Up to `attempts` calls, as long as they raise what is `RETRIED`; delays in seconds.

    The pause before attempt n + 1 is random between 0 and `min_delay` · 2ⁿ⁻¹, at most `max_delay`
    ("full jitter": callers that failed together don't come back together). Where the failure says
    when to ask again, it is not asked sooner. If that does not fit before the caller's deadline
    (or, without one, into `max_delay`), its last error is raised at once.
    """

    attempts: int = 3
    min_delay: float = 0.1
    max_delay: float = 2.0
    # Whether to ask again whom not even a connection could be had to in time.
    reconnects: bool = True
    random: Random = field(default_factory=Random, repr=False, compare=False)
    # The node that it is for.
    name: str = field(default="", repr=False, compare=False)

    async def run(self, call: Callable[[], Awaitable[Result]], tell: Tell = untold) -> Result:
        for attempt in range(1, self.attempts):
            try:
                return await _attempt(call)
            except StoreError as error:
                if not is_retried(error) or (
                    isinstance(error, Unreachable) and not self.reconnects
                ):
                    raise
                wanted = error.retry_after if isinstance(error, Unavailable) else None
                pause = self._pause(attempt, wanted)
                if pause is None:
                    tell("retry.no_time", f"no time is left for attempt {attempt + 1}", None)
                    raise
                reason = str(error)
                tell(
                    "retry",
                    f"attempt {attempt + 1} of {self.attempts}, after {spell(pause)}",
                    pause,
                )
            with Waiting("retry", "", self.name, "pausing", reason):
                await asyncio.sleep(pause)
        return await _attempt(call)

    def _pause(self, attempt: int, retry_after: float | None) -> float | None:
        """Seconds until the attempt after number `attempt`; `None` if they cannot be spared."""
        ceiling = min(self.max_delay, self.min_delay * 2 ** (attempt - 1))
        pause = max(self.random.uniform(0, ceiling), retry_after or 0.0)
        left = remaining()
        fits = pause <= self.max_delay if left is None else pause < left
        return pause if fits else None


async def _attempt(call: Callable[[], Awaitable[Result]]) -> Result:
    limit = attempt_limit()
    return await call() if limit is None else await answer_within(limit, call)
