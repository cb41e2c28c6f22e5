"""The moment by which a caller wants an answer, known to everything that works for him.

A deadline is soft: whoever waits (a timeout, a pause between two attempts) reads it and gives up in
time, with an error that says what it waited for. Cancelling, which says nothing, comes only later.
It travels in the context, so tasks started for the caller know it too; a task that outlives him
starts with a fresh `contextvars.Context()`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context

# In the running loop's time.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
# Seconds that one attempt gets, where whoever waits said so for all that are made on the way down.
_attempt: ContextVar[float | None] = ContextVar("attempt", default=None)


def remaining() -> float | None:
    """Seconds left, 0 when none are, or `None` if nobody set a deadline."""
    deadline = _deadline.get()
    if deadline is None:
        return None
    return max(0.0, deadline - asyncio.get_running_loop().time())


def within(seconds: float) -> float:
    """`seconds`, or what is left if that is less."""
    left = remaining()
    return seconds if left is None else min(seconds, left)


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Sets a deadline in `seconds`; one that comes earlier stays. Not to be held across a `yield`
    of an async generator, whose context is its reader's."""
    token = _deadline.set(asyncio.get_running_loop().time() + within(seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def unhurried() -> Context:
    """The caller's context without his deadline: for a task that may outlive him."""
    context = copy_context()
    context.run(_deadline.set, None)
    return context


@contextmanager
def attempts_of(seconds: float) -> Iterator[None]:
    """Has each attempt that is made inside take at most `seconds`; whoever repeats looks here."""
    token = _attempt.set(seconds)
    try:
        yield
    finally:
        _attempt.reset(token)


def attempt_limit() -> float | None:
    """What one attempt gets, or `None` if nobody said."""
    return _attempt.get()
