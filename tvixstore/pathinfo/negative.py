"""Remembers what was absent, so that asking again costs nothing for a while."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.ttl import TtlMap


@dataclass(eq=False)
class NegativePathInfoService(PathInfoWrapper):
    """Keeps up to `capacity` absent answers in memory, for `ttl` seconds each.

    Only a plain "absent" is kept: never an unknown, nor that a path lacks one particular NAR.
    """

    ttl: float = 60.0
    capacity: int = 100_000
    _absent: TtlMap[bytes, bool] = field(init=False, repr=False)
    _puts: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._absent = TtlMap(self.capacity)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        if self._absent.get(path_hash) is not None:
            return None
        puts = self._puts
        description = await self.inner.describe(path_hash, nar_sha256)
        if description is None and nar_sha256 is None:
            self._remember(path_hash, puts)
        return description

    async def get(self, path_hash: bytes) -> PathInfo | None:
        if self._absent.get(path_hash) is not None:
            return None
        puts = self._puts
        info = await self.inner.get(path_hash)
        if info is None:
            self._remember(path_hash, puts)
        return info

    async def put(self, info: PathInfo) -> PathInfo:
        try:
            return await self.inner.put(info)
        finally:
            # Also where it failed: it may have arrived all the same.
            self._puts += 1
            self._absent.discard(info.store_path.hash)

    def _remember(self, path_hash: bytes, puts: int) -> None:
        # An answer that a put may have overtaken is not worth keeping.
        if puts == self._puts:
            self._absent.put(path_hash, True, self.ttl)
