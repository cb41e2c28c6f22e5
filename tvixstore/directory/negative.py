"""Remembers what was absent, so that asking again costs nothing for a while."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory.begun import BegunClosure, all_of, begin
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.watched import WatchedPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.policy.negative import Absences


@dataclass(eq=False)
class NegativeDirectoryService(DirectoryWrapper):
    """Answers from `absences`; what is put through here is there at once."""

    absences: Absences[Digest] = field(default_factory=Absences)

    async def get(self, digest: Digest) -> Directory | None:
        return await self.absences.ask(digest, lambda: self.inner.get(digest))

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        wanted = [digest for digest in digests if digest not in self.absences]
        moment = self.absences.moment()
        found = await self.inner.get_many(wanted) if wanted else []
        for digest, directory in zip(wanted, found, strict=True):
            self.absences.learn(digest, directory is None, moment)
        answers = dict(zip(wanted, found, strict=True))
        return [answers.get(digest) for digest in digests]

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        async def ask() -> BegunClosure | None:
            return await self.absences.ask(root, lambda: begin(self.inner, root))

        return all_of(ask)

    async def put(self, directory: Directory) -> Digest:
        try:
            return await self.inner.put(directory)
        finally:
            # Also where it failed: it may have arrived all the same.
            self.absences.arrived([directory.digest])

    async def put_many(self, directories: Sequence[Directory]) -> None:
        try:
            await self.inner.put_many(directories)
        finally:
            self.absences.arrived([directory.digest for directory in directories])

    async def put_closure(self) -> DirectoryPutter:
        return WatchedPutter(await self.inner.put_closure(), self.absences.arrived)
