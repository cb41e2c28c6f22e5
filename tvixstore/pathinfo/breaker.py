"""Leaves a service alone that keeps failing, so that nobody waits for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.carrying import Carrying
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class BreakerPathInfoService(PathInfoWrapper):
    """Has `describe`, `get` and `open_nar` pass through `breaker`.

    With `carrying`, over the same breaker, one `describe` now and then outlives who asked.
    """

    breaker: Breaker = field(default_factory=Breaker)
    carrying: Carrying | None = field(default=None, repr=False)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        if self.carrying is None:
            return await self._describe(path_hash, nar_sha256)
        return await self.carrying.run(lambda: self._describe(path_hash, nar_sha256))

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

    async def _describe(self, path_hash: bytes, nar_sha256: bytes | None) -> Description | None:
        return await self.breaker.run(lambda: self.inner.describe(path_hash, nar_sha256), tell=note)
