"""Asks again when the answer could not be had."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.retry import Retry
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class RetryPathInfoService(PathInfoWrapper):
    """Retries `describe`, `get` and the opening of a NAR; a stream that breaks stays broken."""

    retry: Retry = field(default_factory=Retry)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self.retry.run(lambda: self.inner.describe(path_hash, nar_sha256))

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return await self.retry.run(lambda: self.inner.get(path_hash))

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return await self.retry.run(lambda: self.inner.open_nar(description, offset, length, into))
