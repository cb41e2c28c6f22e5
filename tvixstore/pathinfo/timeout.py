"""Gives up waiting for an answer; never on a download."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.timeout import Timeout


@dataclass(eq=False)
class TimeoutPathInfoService(PathInfoWrapper):
    """Bounds `describe` by `timeout`; a caller's earlier deadline comes first.

    `get`'s download and `open_nar` take as long as they take: a NAR's first byte may have to wait
    until all of it is verified. Whether it still moves is for whoever reads the network to say.
    """

    timeout: Timeout = field(default_factory=Timeout)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self.timeout.run(lambda: self.inner.describe(path_hash, nar_sha256))
