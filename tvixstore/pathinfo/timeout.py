"""Gives up waiting for an answer; never on a download."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.info import Description
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.deadline import within
from tvixstore.streams import ByteStream

Answer = TypeVar("Answer")


@dataclass(eq=False)
class TimeoutPathInfoService(PathInfoWrapper):
    """Bounds `describe`, and the wait for `open_nar`'s stream, by `attempt` seconds.

    The stream itself and `get`'s download take as long as they take: whether they still move is for
    whoever reads the network to say. A caller's earlier deadline comes first.
    """

    attempt: float = 5.0

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self._bounded(self.inner.describe(path_hash, nar_sha256))

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return await self._bounded(self.inner.open_nar(description, offset, length, into))

    async def _bounded(self, answer: Awaitable[Answer]) -> Answer:
        seconds = within(self.attempt)
        try:
            async with asyncio.timeout(seconds) as scope:
                return await answer
        except TimeoutError:
            if scope.expired():
                raise Unavailable(f"no answer within {seconds:.3g} s") from None
            raise
