"""Path infos spread over several places, each in the one that its hash draws.

All members are asked in the order of the draw before a path is absent: that also finds what came
before a member was added, in the second place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.members import PathInfoMembers
from tvixstore.policy.in_turn import in_turn
from tvixstore.policy.race import Member
from tvixstore.policy.rendezvous import Rendezvous


@dataclass(eq=False)
class ShardPathInfoService(PathInfoMembers):
    """Each path at the member that `placement` says."""

    placement: Rendezvous

    def __post_init__(self) -> None:
        self.content = next((each.content for each in self.members if each.content), None)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        order = self.placement.order(path_hash)
        answer = await in_turn(
            [
                Member(self.names[i], partial(self.members[i].describe, path_hash, nar_sha256))
                for i in order
            ]
        )
        if answer is None:
            return None
        place, description = answer
        self.won(path_hash, order[place])
        return description

    async def put(self, info: PathInfo) -> PathInfo:
        place = self.placement.order(info.store_path.hash)[0]
        return await self.members[place].put(info)
