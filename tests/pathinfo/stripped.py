"""Takes a key's signatures off what comes out, so that the rest can be held to the contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from tvixstore.pathinfo import Description, PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper

Described = TypeVar("Described", bound=Description)


@dataclass(eq=False)
class StrippedPathInfoService(PathInfoWrapper):
    name: str

    def _stripped(self, description: Described) -> Described:
        others = tuple(each for each in description.signatures if each.name != self.name)
        return replace(description, signatures=others)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        info = await self.inner.get(path_hash)
        return None if info is None else self._stripped(info)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        description = await self.inner.describe(path_hash, nar_sha256)
        return None if description is None else self._stripped(description)

    async def put(self, info: PathInfo) -> PathInfo:
        return self._stripped(await self.inner.put(info))

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        async with aclosing(self.inner.list()) as infos:
            async for info in infos:
                yield self._stripped(info)
