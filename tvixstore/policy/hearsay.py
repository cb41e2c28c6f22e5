"""Tells an answer that came from memory from one that the network gave.

Who guards an upstream (a breaker) or reports on it (its health) learns from its answers whether it
is up. What was remembered says nothing about that, and would keep a breaker closed, or close one,
while the upstream is down. So whoever answers from memory says so here, and the guard around the
running call takes the outcome as no news.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Self


class Call:
    """`with Call()`: the call to be guarded runs inside, in this very task."""

    __slots__ = ("_token", "from_memory")

    def __init__(self) -> None:
        self.from_memory = False

    def __enter__(self) -> Self:
        self._token = _call.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _call.reset(self._token)


_call: ContextVar[Call | None] = ContextVar("call", default=None)


def is_hearsay() -> bool:
    """Whether the running call, if it is guarded, was answered from memory."""
    call = _call.get()
    return call is not None and call.from_memory


def say(from_memory: bool) -> None:
    """Says where the running call's answer comes from; the last word counts."""
    call = _call.get()
    if call is not None:
        call.from_memory = from_memory
