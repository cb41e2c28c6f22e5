"""Watching what is under way, for as long as the caller wants and the daemon runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from grpclib.const import Status

from tvixstore.activity import Activity, Watch
from tvixstore.rpc.server.refusals import Refusal


@dataclass(eq=False, slots=True)
class ActivityHandlers:
    activity: Activity
    draining: asyncio.Event

    async def watch(self, every: float) -> AsyncGenerator[str, None]:
        """A snapshot at once, and then one `every` so many seconds."""
        watch = Watch.begin(self.activity, "grpc", self.draining)
        if watch is None:
            raise Refusal(Status.RESOURCE_EXHAUSTED, "too many watchers at once: try again")
        with watch:
            yield await watch.text()
            while not await watch.ended_within(every):
                yield await watch.text()
