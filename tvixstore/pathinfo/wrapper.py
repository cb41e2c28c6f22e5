"""What all wrappers of one path-info service have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class PathInfoWrapper(PathInfoService):
    """Passes every call on to `inner`; a policy overrides those that it is about."""

    inner: PathInfoService

    def __post_init__(self) -> None:
        self.content = self.inner.content

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return await self.inner.get(path_hash)

    async def put(self, info: PathInfo) -> PathInfo:
        return await self.inner.put(info)

    def list(self) -> AsyncGenerator[PathInfo, None]:
        return self.inner.list()

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self.inner.describe(path_hash, nar_sha256)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return await self.inner.open_nar(description, offset, length, into)
