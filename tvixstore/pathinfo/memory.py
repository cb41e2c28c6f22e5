"""Path infos in a dict: for tests, and for compositions that keep nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvixstore.nix import KeyRing
from tvixstore.pathinfo.info import PathInfo
from tvixstore.pathinfo.merge import merge
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.tree import Content


class MemoryPathInfoService(PathInfoService):
    """`keys` are trusted when two path infos for one path contradict each other."""

    def __init__(self, content: Content | None = None, keys: KeyRing | None = None) -> None:
        self.content = content
        self.keys = keys
        self.infos: dict[bytes, PathInfo] = {}

    def __repr__(self) -> str:
        return "memory"

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return self.infos.get(path_hash)

    async def put(self, info: PathInfo) -> PathInfo:
        key = info.store_path.hash
        old = self.infos.get(key)
        merged = merge(old, info, self.keys)
        if old is not None and merged == old:
            return old
        self.infos[key] = merged
        return merged

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        for info in tuple(self.infos.values()):
            yield info
