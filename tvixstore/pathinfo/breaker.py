"""Leaves a service alone that keeps failing, so that nobody waits for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class BreakerPathInfoService(PathInfoWrapper):
    """Has `describe`, `get` and `open_nar` pass through `breaker`."""

    breaker: Breaker = field(default_factory=Breaker)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self.breaker.run(lambda: self.inner.describe(path_hash, nar_sha256), tell=note)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return await self.breaker.run(lambda: self.inner.get(path_hash), download=True, tell=note)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return await self.breaker.run(
            lambda: self.inner.open_nar(description, offset, length, into),
            download=True,
            tell=note,
        )
