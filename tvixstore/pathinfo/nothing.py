"""Has nothing, and takes nothing: in place of services elsewhere, while there is no elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvixstore.errors import ReadOnly, Unsupported
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.streams import ByteStream


class NoPathInfos(PathInfoService):
    def __repr__(self) -> str:
        return "nothing"

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return None

    async def put(self, info: PathInfo) -> PathInfo:
        raise ReadOnly("offline: that is elsewhere, and takes no writes now")

    def list(self) -> AsyncGenerator[PathInfo, None]:
        raise Unsupported("offline: what is elsewhere cannot be listed")

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return None
