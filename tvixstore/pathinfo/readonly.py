"""Takes no writes."""

from __future__ import annotations

from dataclasses import dataclass

from tvixstore.errors import ReadOnly
from tvixstore.pathinfo.info import PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper


@dataclass(eq=False)
class ReadOnlyPathInfoService(PathInfoWrapper):
    """Reads from `inner`; whoever puts gets `ReadOnly`."""

    async def put(self, info: PathInfo) -> PathInfo:
        raise ReadOnly("this path-info service was declared readonly")
