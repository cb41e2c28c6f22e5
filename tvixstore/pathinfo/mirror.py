"""The same path infos in several places: written to all, read from any, repaired where one lacks
some. What they are about, blobs and Directories, is for mirrors of those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tvixstore.errors import InvalidData
from tvixstore.log import Logger
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.quorum import at_all
from tvixstore.policy.race import Member
from tvixstore.policy.repairs import Repair, Repairs

log = Logger("tvixstore.pathinfo.mirror")


@dataclass(eq=False)
class MirrorPathInfoService(FallbackPathInfoService):
    """Writes to all `members`, of which `quorum` have to succeed, and asks them in order.

    Who misses a write, or is found to lack what another has, gets it later (`repairs`), unless he
    refuses it: another NAR of the path is no gap. Whoever built it closes it.
    """

    quorum: int = 1
    repair: bool = True
    count: Callable[[str], None] = field(default=lambda _: None, repr=False)
    repairs: Repairs[bytes] | None = field(default=None, init=False, repr=False)
    _plain: Sequence[PathInfoService] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._plain = self.members
        self.content = next((each.content for each in self._plain if each.content), None)
        if self.repair:
            self.repairs = Repairs(", ".join(self.names), self._repair, self.count)
            self.members = [
                _Noting(member, index, self.repairs) for index, member in enumerate(self._plain)
            ]

    async def put(self, info: PathInfo) -> PathInfo:
        members = {
            index: Member(self.names[index], partial(member.put, info))
            for index, member in enumerate(self._plain)
        }
        outcomes = await at_all(members, self.quorum)
        source = min(outcomes.done)
        for index, error in outcomes.failed.items():
            log.info(
                "mirror.member_dropped",
                node=self.names[index],
                reason=str(error) or type(error).__name__,
            )
            if self.repairs is not None and not isinstance(error, InvalidData):
                self.repairs.request(Repair(info.store_path.hash, source, index))
        return outcomes.done[source]

    async def aclose(self) -> None:
        """Ends the repairs."""
        if self.repairs is not None:
            await self.repairs.aclose()

    async def _repair(self, repair: Repair[bytes]) -> bool:
        info = await self._plain[repair.source].get(repair.key)
        if info is None:
            return False
        await self._plain[repair.target].put(info)
        return True


@dataclass(eq=False)
class _Noting(PathInfoWrapper):
    """Tells `repairs` what the member at `index` has, and what it lacks."""

    index: int
    repairs: Repairs[bytes]

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        description = await self.inner.describe(path_hash, nar_sha256)
        if nar_sha256 is None:
            self._note(path_hash, description)
        return description

    async def get(self, path_hash: bytes) -> PathInfo | None:
        info = await self.inner.get(path_hash)
        self._note(path_hash, info)
        return info

    def _note(self, path_hash: bytes, found: Description | None) -> None:
        (self.repairs.lacks if found is None else self.repairs.has)(path_hash, self.index)
