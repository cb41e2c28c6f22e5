"""Giving up on an answer that does not come, with an error that says how long it was awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tvixstore.errors import Unavailable
from tvixstore.policy.deadline import attempts_of, bounded, within

Result = TypeVar("Result")


class Hurried(Unavailable):
    """The caller's deadline came before there had to be an answer: that says little of whoever was
    asked."""


async def answer_within(seconds: float, call: Callable[[], Awaitable[Result]]) -> Result:
    """What `call` answers within `seconds`, or before the caller's deadline if that is earlier.

    Raises `Unavailable` where nothing came, `Hurried` if that was for the deadline.
    """
    wait = within(seconds)
    try:
        async with asyncio.timeout(wait) as scope:
            return await call()
    except TimeoutError:
        if scope.expired():
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
