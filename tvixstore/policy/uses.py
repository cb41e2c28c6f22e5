"""Counting who uses something, so that it can be put away when nobody does any more."""

from __future__ import annotations

import asyncio


class Uses:
    """Between `begin` and `end` it is in use; both cost next to nothing.

    `over` is for one who waits; whoever hands the thing out has to have stopped by then.
    """

    __slots__ = ("_over", "count")

    def __init__(self) -> None:
        self.count = 0
        self._over: asyncio.Future[None] | None = None

    def begin(self) -> None:
        self.count += 1

    def end(self) -> None:
        self.count -= 1
        if not self.count and self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def over(self) -> None:
        """Returns when nobody uses it."""
        while self.count:
            self._over = asyncio.get_running_loop().create_future()
            try:
                await self._over
            finally:
                self._over = None
