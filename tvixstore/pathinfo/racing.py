"""Asks several services at once, or shortly after each other, and takes the first right answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from tvixstore.pathinfo.info import Description
from tvixstore.pathinfo.members import PathInfoMembers
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.race import Member, race
from tvixstore.policy.tracing import note


@dataclass(eq=False)
class RacingPathInfoService(PathInfoMembers):
    """Races `describe`, as `hedge` says: all at once, or each some time after the one before.

    Only descriptions race. `get` and `open_nar` go to the winner and then to the others in turn:
    NARs are never downloaded twice for speed.
    """

    hedge: Hedging = field(default_factory=Hedging)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        answer = await race(
            [
                Member(name, partial(member.describe, path_hash, nar_sha256))
                for name, member in zip(self.names, self.members, strict=True)
            ],
            self.hedge,
            tell=note,
        )
        if answer is None:
            return None
        index, description = answer
        self.won(path_hash, index)
        return description
