"""What racing and falling back have in common: members, of which the first valid answer counts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tvixstore.castore import Digest, Directory
from tvixstore.directory.begun import BegunClosure, begin, nothing_more
from tvixstore.directory.going_on import GoingOn
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.directory.verify import verified
from tvixstore.errors import Incomplete, ReadOnly, StoreError
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
        return await self._one(digest, set())

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        return await self._many(digests, set())

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return self._closure(root)

    async def put(self, directory: Directory) -> Digest:
        return await self._write(lambda member: member.put(directory))

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self._write(lambda member: member.put_many(directories))

    async def put_closure(self) -> DirectoryPutter:
        return await self._write(lambda member: member.put_closure())

    async def _one(self, digest: Digest, set_back: set[int]) -> Directory | None:
        async def ask(member: DirectoryService) -> Directory | None:
            return verified(digest, await member.get(digest))

        answer = await self._ask(ask, set_back)
        return None if answer is None else answer[1]

    async def _many(self, digests: Sequence[Digest], set_back: set[int]) -> list[Directory | None]:
        # Together they may have all of them, where nobody has.
        found: dict[Digest, Directory] = {}

        async def ask(member: DirectoryService) -> bool | None:
            wanted = [digest for digest in digests if digest not in found]
            for digest, answer in zip(wanted, await member.get_many(wanted), strict=True):
                if (directory := verified(digest, answer)) is not None:
                    found[digest] = directory
            return all(digest in found for digest in digests) or None

        if not digests:
            return []
        try:
            await self._ask(ask, set_back)
        except StoreError:
            if len(digests) == 1:
                raise
            # Who failed may have failed at one of them: the others are not unknown for that.
            for digest in digests:
                if digest not in found and (one := await self._one(digest, set_back)) is not None:
                    found[digest] = one
        return [found.get(digest) for digest in digests]

    async def _closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        # Who fails at this closure is asked last for what is left of it.
        set_back: set[int] = set()
        answer = await self._ask(partial(_begin, root=root), set_back, BegunClosure.aclose)
        if answer is None:
            return
        index, begun = answer

        going_on = GoingOn(
            root,
            self.names[index],
            begun,
            get_many=lambda digests: self._many(digests, set_back),
            failed=lambda: set_back.add(index),
        )
        async with aclosing(going_on.closure()) as closure:
            async for directory in closure:
                yield directory

    async def _ask(
        self,
        ask: Callable[[DirectoryService], Coroutine[Any, Any, Result | None]],
        set_back: set[int],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        """The first right answer with its member's index. Who is in `set_back` is asked last, and
        who fails comes to be in it."""

        async def ask_at(index: int) -> Result | None:
            try:
                return await ask(self.members[index])
            except Exception:
                set_back.add(index)
                raise

        order = sorted(range(len(self.members)), key=set_back.__contains__)
        members = [
            Member(self.names[index], partial(ask_at, index), index in set_back) for index in order
        ]
        answer = await self._first(members, dispose)
        return None if answer is None else (order[answer[0]], answer[1])

    async def _write(self, write: Callable[[DirectoryService], Awaitable[Result]]) -> Result:
        for member in self.members:
            try:
                return await write(member)
            except ReadOnly:
                continue
        raise ReadOnly(f"none of {', '.join(self.names)} takes writes")


async def _begin(member: DirectoryService, root: Digest) -> BegunClosure | None:
    try:
        begun = await begin(member, root)
    except Incomplete:
        # It has the root all the same, and others may have the rest.
        directory = verified(root, await member.get(root))
        if directory is None:
            raise
        return BegunClosure(directory, nothing_more())
    if begun is None:
        return None
    try:
        verified(root, begun.root)
    except BaseException:
        await begun.aclose()
        raise
    return begun
