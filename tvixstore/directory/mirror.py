"""The same Directories in several places: written to all, read from any, repaired where one lacks
some."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from tvixstore.castore import Digest, Directory
from tvixstore.directory.closure import ClosurePutter, checked_closure
from tvixstore.directory.fallback import FallbackDirectoryService
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.log import Logger
from tvixstore.policy.quorum import at_all
from tvixstore.policy.race import Member
from tvixstore.policy.repairs import Repair, Repairs

Result = TypeVar("Result")

log = Logger("tvixstore.directory.mirror")


@dataclass(eq=False)
class MirrorDirectoryService(FallbackDirectoryService):
    """Writes to all `members`, of which `quorum` have to succeed, and asks them in order.

    Who misses a write, or is found to lack what another has, gets it later (`repairs`), with all
    that is below it. Whoever built it closes it.
    """

    quorum: int = 1
    repair: bool = True
    count: Callable[[str], None] = field(default=lambda _: None, repr=False)
    repairs: Repairs[Digest] | None = field(default=None, init=False, repr=False)
    _plain: Sequence[DirectoryService] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._plain = self.members
        if self.repair:
            self.repairs = Repairs(", ".join(self.names), self._repair, self.count)
            self.members = [
                _Noting(member, index, self.repairs) for index, member in enumerate(self._plain)
            ]

    async def put(self, directory: Directory) -> Digest:
        await self._write_to_all([directory], lambda member: member.put(directory))
        return directory.digest

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self._write_to_all(directories, lambda member: member.put_many(directories))

    async def put_closure(self) -> DirectoryPutter:
        return ClosurePutter(self)

    async def aclose(self) -> None:
        """Ends the repairs."""
        if self.repairs is not None:
            await self.repairs.aclose()

    async def _write_to_all(
        self,
        directories: Sequence[Directory],
        write: Callable[[DirectoryService], Coroutine[Any, Any, Result]],
    ) -> None:
        members = {
            index: Member(self.names[index], partial(write, member))
            for index, member in enumerate(self._plain)
        }
        outcomes = await at_all(members, self.quorum)
        below = {child.digest for directory in directories for child in directory.children}
        roots = [each.digest for each in directories if each.digest not in below]
        for index, error in outcomes.failed.items():
            log.info(
                "mirror.member_dropped",
                node=self.names[index],
                reason=str(error) or type(error).__name__,
            )
            if self.repairs is not None:
                for root in roots:
                    self.repairs.request(Repair(root, min(outcomes.done), index))

    async def _repair(self, repair: Repair[Digest]) -> bool:
        # Whose root it is may lack something below it, which another one has.
        order = sorted(range(len(self._plain)), key=lambda index: index != repair.source)
        members = [self._plain[index] for index in order if index != repair.target]
        names = [self.names[index] for index in order if index != repair.target]
        sources = FallbackDirectoryService(members, names)
        async with aclosing(checked_closure(sources, repair.key)) as closure:
            found = [directory async for directory in closure]
        # Parents came first, and go last: the closure is there once its root is.
        await self._plain[repair.target].put_many(found[::-1])
        return bool(found)


@dataclass(eq=False)
class _Noting(DirectoryWrapper):
    """Tells `repairs` what the member at `index` has, and what it lacks."""

    index: int
    repairs: Repairs[Digest]

    async def get(self, digest: Digest) -> Directory | None:
        return self._note(digest, await self.inner.get(digest))

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        found = await self.inner.get_many(digests)
        for digest, directory in zip(digests, found, strict=True):
            self._note(digest, directory)
        return found

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        noted = False
        async with aclosing(self.inner.get_closure(root)) as closure:
            async for directory in closure:
                if not noted:
                    noted = True
                    self._note(root, directory)
                yield directory
        if not noted:
            self._note(root, None)

    def _note(self, digest: Digest, directory: Directory | None) -> Directory | None:
        (self.repairs.lacks if directory is None else self.repairs.has)(digest, self.index)
        return directory
