"""Gives up waiting for an answer; never on a download."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.info import Description
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.deadline import within

Answer = TypeVar("Answer")


@dataclass(eq=False)
class TimeoutPathInfoService(PathInfoWrapper):
    """Bounds `describe` by `attempt` seconds; a caller's earlier deadline comes first.

    `get`'s download and `open_nar` take as long as they take: a NAR's first byte may have to wait
    until all of it is verified. Whether it still moves is for whoever reads the network to say.
    """

    attempt: float = 5.0

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self._bounded(self.inner.describe(path_hash, nar_sha256))

    async def _bounded(self, answer: Awaitable[Answer]) -> Answer:
        seconds = within(self.attempt)
        try:
            async with asyncio.timeout(seconds) as scope:
                return await answer
        except TimeoutError:
            if scope.expired():
                raise Unavailable(f"no answer within {seconds:.3g} s") from None
            raise
