"""Asks no more of a store than it should be asked: calls at a time, bytes a second."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.limit import Limit, limited, using
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class LimitPathInfoService(PathInfoWrapper):
    """Over a store itself: calls and streams each hold a permit of `limit`, and NARs count against
    its rate.

    `get` holds one for all that it does, so a binary cache `downloads` without: it waits for the
    blobs and Directories that it fills, and has bounds of its own.
    """

    limit: Limit
    downloads: bool = False

    async def get(self, path_hash: bytes) -> PathInfo | None:
        if self.downloads:
            return await self.inner.get(path_hash)
        async with self.limit.held(note):
            return await self.inner.get(path_hash)

    async def put(self, info: PathInfo) -> PathInfo:
        async with self.limit.held(note):
            return await self.inner.put(info)

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        permit = await self.limit.acquire()
        try:
            async with aclosing(self.inner.list()) as infos:
                while True:
                    with using(permit):
                        info = await anext(infos, None)
                    if info is None:
                        return
                    yield info
        finally:
            if permit is not None:
                permit.release()

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        async with self.limit.held(note):
            return await self.inner.describe(path_hash, nar_sha256)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return await limited(
            self.limit, lambda: self.inner.open_nar(description, offset, length, into), note
        )
