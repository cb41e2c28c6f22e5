"""Generations that live, the present one and those that drain, and the parts that they have."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from tvixstore.blob.staging import to_the_end
from tvixstore.compose.generation import Generation
from tvixstore.compose.parts import Part, close_services, close_upstreams
from tvixstore.compose.stores import Stores
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.pathinfo.nix import Fills
from tvixstore.policy.tasks import end

log = Logger("tvixstore.compose")


class Generations:
    """Those over `stores`. Whoever makes a new one holds `changing` meanwhile: nothing that it may
    take over goes then."""

    def __init__(self, stores: Stores, metrics: Metrics) -> None:
        self.live: list[Generation] = []
        # All that is open, of whichever of them.
        self.parts: set[Part] = set()
        self.changing = asyncio.Lock()
        self._stores = stores
        self._metrics = metrics
        self._drains: set[asyncio.Task[None]] = set()

    @property
    def draining(self) -> int:
        """How many of them are not the present one, and still used."""
        return len(self._drains)

    def taken_over(self) -> list[Part]:
        """What a new one may be built of: what drains is wanted again, sometimes."""
        return [part for each in reversed(self.live) for part in each.parts]

    def drain(self, generation: Generation, fills: Fills) -> None:
        """Closes what only `generation` has, in its time: it is not the present one any more."""
        task = asyncio.create_task(self._put_away(generation, fills), name="drain a composition")
        self._drains.add(task)
        self._metrics.draining.inc()
        task.add_done_callback(self._ended)

    async def drained(self) -> None:
        """Returns when nothing is left but the present one."""
        while drains := set(self._drains):
            await asyncio.wait(drains)

    async def discard(self, parts: list[Part]) -> None:
        """Closes parts that nobody has used."""
        self.parts.difference_update(parts)
        await _closed(close_services(parts))
        await _closed(close_upstreams(parts))

    async def end(self) -> None:
        """Drains no longer: nobody is left who would be cut off."""
        await end(set(self._drains))

    async def close_services(self) -> None:
        await close_services(self.parts)

    async def close_upstreams(self) -> None:
        await close_upstreams(self.parts)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._drains.discard(task)
        self._metrics.draining.dec()

    async def _put_away(self, generation: Generation, fills: Fills) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await generation.uses.over()
        await fills.outlast()
        async with self.changing:
            # From here on nothing of it is taken over any more.
            self.live.remove(generation)
            parts = generation.parts.difference(*(each.parts for each in self.live))
        await _closed(close_services(parts))
        # What those had begun by themselves.
        await fills.outlast()
        await _closed(close_upstreams(parts))
        self.parts -= parts
        async with self.changing:
            places = generation.places.difference(*(each.places for each in self.live))
            await _closed(self._stores.close(places))
            self._stores.keep_all_small()
        log.info("reload.drained", parts=len(parts), seconds=round(loop.time() - began, 3))


async def _closed(closing: Coroutine[Any, Any, None]) -> None:
    """Closes it to the end, even if nobody waits for it any more, and whatever becomes of it."""
    try:
        await to_the_end(closing)
    except Exception as error:
        log.error("reload.not_closed", exc_info=error, reason=str(error))
