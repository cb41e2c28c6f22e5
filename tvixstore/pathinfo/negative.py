"""Remembers what was absent, so that asking again costs nothing for a while."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.negative import Absences
from tvixstore.policy.tracing import here, note, spell


@dataclass(eq=False)
class NegativePathInfoService(PathInfoWrapper):
    """Answers from `absences`; what is put through here is there at once.

    Only a plain "absent" is kept: not that a path lacks one particular NAR.
    """

    absences: Absences[bytes] = field(default_factory=Absences)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        self._tell(path_hash)
        return await self.absences.ask(
            path_hash,
            lambda: self.inner.describe(path_hash, nar_sha256),
            lambda answer: answer is None and nar_sha256 is None,
        )

    async def get(self, path_hash: bytes) -> PathInfo | None:
        self._tell(path_hash)
        return await self.absences.ask(path_hash, lambda: self.inner.get(path_hash))

    async def put(self, info: PathInfo) -> PathInfo:
        try:
            return await self.inner.put(info)
        finally:
            # Also where it failed: it may have arrived all the same.
            self.absences.arrived([info.store_path.hash])

    def _tell(self, path_hash: bytes) -> None:
        if here() is not None and (left := self.absences.left(path_hash)) is not None:
            note("memory.absent", f"remembered as absent for {spell(left)} more", left)
