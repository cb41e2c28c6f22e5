"""Clients that keep a connection and bring it no further: one look at each now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web


class SlowClient(Exception):
    """What reading a request's body raises when none of it has come for too long."""


class Since:
    """Since when a thing has been the same, as far as looks can tell."""

    __slots__ = ("_since", "_what")

    def __init__(self) -> None:
        self._what: object = None
        self._since = 0.0

    def seconds(self, what: object, now: float) -> float:
        """For how long it has been `what`; `None` is for nothing that would count."""
        if what is None or what != self._what:
            self._what, self._since = what, now
        return now - self._since


def awaited(request: web.BaseRequest | None) -> object | None:
    """What its handler waits for of its body: another object for each time that some came."""
    return None if request is None else getattr(request.content, "_waiter", None)


def untaken(request: web.BaseRequest | None, left: int) -> object | None:
    """What has gone out while `left` bytes wait; `None` if nothing has to wait."""
    if not left:
        return None
    return (0 if request is None else request.writer.output_size) - left, request is None
