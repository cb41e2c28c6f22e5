"""Upkeep of what is in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from tvixstore.errors import Unavailable
from tvixstore.nix import StorePath
from tvixstore.policy.tasks import end
from tvixstore.upkeep.findings import Findings
from tvixstore.upkeep.holdings import Holdings
from tvixstore.upkeep.pinning import Pinning
from tvixstore.upkeep.scrub import Scrub
from tvixstore.upkeep.service import Event, Finding, Pinned, PinRequest, Upkeep, VerifyRequest

# Seconds after which it is told how far a check has come, whatever it is at.
_INTERVAL: Final = 0.5
# Findings that wait for whoever reads them; then the check waits.
_WAITING: Final = 64


class LocalUpkeep(Upkeep):
    """Of `holdings`. One check at a time."""

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self._pinning = Pinning(holdings)
        self._checking = False

    async def pin(self, request: PinRequest) -> Pinned | None:
        return await self._pinning.pin(request)

    async def unpin(self, store_path: StorePath) -> bool:
        return await self._pinning.unpin(store_path)

    def pins(self) -> AsyncGenerator[Pinned, None]:
        return self._pinning.pins()

    async def verify(self, request: VerifyRequest) -> AsyncGenerator[Event, None]:
        if self._checking:
            raise Unavailable("this store is being verified already: wait for that, or end it")
        self._checking = True
        try:
            async with aclosing(self._events(request)) as events:
                async for event in events:
                    yield event
        finally:
            self._checking = False

    async def _events(self, request: VerifyRequest) -> AsyncGenerator[Event, None]:
        waiting: deque[Finding] = deque()
        news, room = asyncio.Event(), asyncio.Event()

        async def report(finding: Finding) -> None:
            waiting.append(finding)
            news.set()
            while len(waiting) >= _WAITING:
                room.clear()
                await room.wait()

        findings = Findings(report, repair=request.repair)
        task = asyncio.create_task(self._check(request, findings), name="verify")
        task.add_done_callback(lambda _: news.set())
        try:
            while True:
                await _wait(news, _INTERVAL)
                while waiting:
                    yield waiting.popleft()
                    room.set()
                if task.done():
                    break
                yield findings.progress
        finally:
            await end([task])
        task.result()
        yield findings.summary

    async def _check(self, request: VerifyRequest, findings: Findings) -> None:
        scrub = Scrub(self.holdings, findings)
        if request.store_paths:
            await scrub.only(request.store_paths)
        else:
            await scrub.everything()


async def _wait(news: asyncio.Event, seconds: float) -> None:
    """Until there is any, or for so long."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return
    news.clear()
