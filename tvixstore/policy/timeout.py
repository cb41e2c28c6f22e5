"""Giving up on an answer that does not come, with an error that says how long it was awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from tvixstore.errors import Unavailable
from tvixstore.policy.deadline import attempts_of, bounded, within

Result = TypeVar("Result")


class Scope:
    """`with Scope(seconds)`: as `asyncio.timeout`, at a third of its cost, and not to be moved.

    What is awaited inside is cancelled after `seconds`; outside, that is a `TimeoutError`.
    """

    __slots__ = ("_cancelling", "_seconds", "_task", "_timer", "expired")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        # How often it is being cancelled already, by others.
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        # Somebody else who cancels it at the same time is not to be taken for this.
        if self.expired and self._task.uncancel() <= self._cancelling:
            if isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()


class Hurried(Unavailable):
    """The caller's deadline came before there had to be an answer: that says little of whoever was
    asked."""


async def answer_within(seconds: float, call: Callable[[], Awaitable[Result]]) -> Result:
    """What `call` answers within `seconds`, or before the caller's deadline if that is earlier.

    Raises `Unavailable` where nothing came, `Hurried` if that was for the deadline.
    """
    wait = within(seconds)
    try:
        with Scope(wait) as scope:
            return await call()
    except TimeoutError:
        if scope.expired:
            kind = Hurried if wait < seconds else Unavailable
            raise kind(f"no answer within {wait:.3g} s") from None
        raise


@dataclass(frozen=True, slots=True)
class Timeout:
    """One call gets `attempt` seconds.

    With `overall`, a call gets that many, and `attempt` is what each attempt gets that a retry
    further down makes for it: the pauses between them and all attempts together fit into `overall`.
    """

    attempt: float = 5.0
    overall: float | None = None

    async def run(self, call: Callable[[], Awaitable[Result]]) -> Result:
        if self.overall is None:
            return await answer_within(self.attempt, call)
        hurried = within(self.overall) < self.overall
        with bounded(self.overall), attempts_of(self.attempt):
            try:
                return await answer_within(self.overall, call)
            except Hurried as error:
                if hurried:
                    raise
                # Of an attempt, for the deadline that was set here.
                raise Unavailable(str(error)) from error
