"""Makes known what is put, to whoever remembers that it was absent."""

from __future__ import annotations

from dataclasses import dataclass

from tvixstore.pathinfo.info import PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.negative import Arrivals


@dataclass(eq=False)
class AnnouncingPathInfoService(PathInfoWrapper):
    """Has `arrivals` tell everybody of what is put into `inner`, or may have been."""

    arrivals: Arrivals[bytes]

    async def put(self, info: PathInfo) -> PathInfo:
        try:
            return await self.inner.put(info)
        finally:
            # Also where it failed: it may have arrived all the same.
            self.arrivals.announce([info.store_path.hash])
