"""Has only those of a cache's paths that are called as somebody wants them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tvixstore.nix import StorePath
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class NamesPathInfoService(PathInfoWrapper):
    """What no glob of `only` matches, if there are any, or one of `but` does, is absent.

    A path is asked for by its hash, so its name is known once the answer is there, and not before.
    """

    only: Sequence[str] = ()
    but: Sequence[str] = ()

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        description = await self.inner.describe(path_hash, nar_sha256)
        return description if description and self._wanted(description.store_path) else None

    async def get(self, path_hash: bytes) -> PathInfo | None:
        # What it is called is looked at before its content is fetched.
        if await self.describe(path_hash) is None:
            return None
        info = await self.inner.get(path_hash)
        return info if info and self._wanted(info.store_path) else None

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        if not self._wanted(description.store_path):
            return None
        return await self.inner.open_nar(description, offset, length, into)

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        async with aclosing(self.inner.list()) as infos:
            async for info in infos:
                if self._wanted(info.store_path):
                    yield info

    def _wanted(self, path: StorePath) -> bool:
        # Not `fnmatch`, which goes by the system's habits.
        def matches(globs: Sequence[str]) -> bool:
            return any(fnmatchcase(path.name, glob) for glob in globs)

        wanted = (not self.only or matches(self.only)) and not matches(self.but)
        if not wanted:
            note("names.unwanted", f"it has {path.name}, which is not wanted from there")
        return wanted
