"""What racing and falling back have in common: members, of which the first valid answer counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tvixstore.castore import Digest, Directory
from tvixstore.directory.begun import BegunClosure, all_of, begin
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.directory.verify import verified
from tvixstore.errors import ReadOnly
from tvixstore.policy.race import Member

Result = TypeVar("Result")


@dataclass(eq=False)
class DirectoryMembers(DirectoryService):
    """Several services that are asked for the same Directories; `names` are theirs in errors."""

    members: Sequence[DirectoryService]
    names: Sequence[str]

    @abstractmethod
    async def _first(
        self,
        members: Sequence[Member[Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        """The first right answer with its member's index; `None` only if all said absent."""

    async def get(self, digest: Digest) -> Directory | None:
        async def ask(member: DirectoryService) -> Directory | None:
            return verified(digest, await member.get(digest))

        return await self._ask(ask)

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        # Together they may have all of them, where nobody has.
        found: dict[Digest, Directory] = {}

        async def ask(member: DirectoryService) -> bool | None:
            wanted = [digest for digest in digests if digest not in found]
            for digest, answer in zip(wanted, await member.get_many(wanted), strict=True):
                if (directory := verified(digest, answer)) is not None:
                    found[digest] = directory
            return all(digest in found for digest in digests) or None

        if digests:
            await self._ask(ask)
        return [found.get(digest) for digest in digests]

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return all_of(lambda: self._ask(partial(_begin, root=root), BegunClosure.aclose))

    async def put(self, directory: Directory) -> Digest:
        return await self._write(lambda member: member.put(directory))

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self._write(lambda member: member.put_many(directories))

    async def put_closure(self) -> DirectoryPutter:
        return await self._write(lambda member: member.put_closure())

    async def _ask(
        self,
        ask: Callable[[DirectoryService], Coroutine[Any, Any, Result | None]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> Result | None:
        members = [
            Member(name, partial(ask, member))
            for name, member in zip(self.names, self.members, strict=True)
        ]
        answer = await self._first(members, dispose)
        return None if answer is None else answer[1]

    async def _write(self, write: Callable[[DirectoryService], Awaitable[Result]]) -> Result:
        for member in self.members:
            try:
                return await write(member)
            except ReadOnly:
                continue
        raise ReadOnly(f"none of {', '.join(self.names)} takes writes")


async def _begin(member: DirectoryService, root: Digest) -> BegunClosure | None:
    begun = await begin(member, root)
    if begun is None:
        return None
    try:
        verified(root, begun.root)
    except BaseException:
        await begun.aclose()
        raise
    return begun
