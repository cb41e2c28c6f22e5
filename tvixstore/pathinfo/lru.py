"""Path infos in memory, as many as there is room for: what was used longest ago is forgotten."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tvixstore.nix import KeyRing
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.merge import merge
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.policy.lru import Lru
from tvixstore.streams import ByteStream
from tvixstore.tree import Content


class LruPathInfoService(PathInfoService):
    """Holds at most `capacity` path infos; `keys` are trusted when two for one path contradict.

    Without `content` it has no NARs to open; whoever holds the content has.
    """

    def __init__(
        self, capacity: int, content: Content | None = None, keys: KeyRing | None = None
    ) -> None:
        self.content = content
        self.keys = keys
        self._capacity = capacity
        self._infos: Lru[bytes, PathInfo] = Lru(capacity)

    def __repr__(self) -> str:
        return f"lru {self._capacity}"

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return self._infos.get(path_hash)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        if self.content is None:
            return None
        return await super().open_nar(description, offset, length, into)

    async def put(self, info: PathInfo) -> PathInfo:
        key = info.store_path.hash
        old = self._infos.get(key)
        merged = merge(old, info, self.keys)
        if old is not None and merged == old:
            return old
        self._infos.put(key, merged)
        return merged

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        for info in self._infos.values():
            yield info
