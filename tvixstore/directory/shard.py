"""Directories spread over several places: a closure whole in the one that its root draws.

So it is put, and mostly read, in one go, also where members take nothing but closures. A Directory
within it is mostly not where its own digest would draw it; whoever had its parent a moment ago is
asked first, and beyond that all members in the order of the draw before it is absent. That also
finds what came before a member was added: in the second place.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field

from tvixstore.castore import Digest, Directory
from tvixstore.directory.closure import ClosurePutter, walk_closure
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.directory.verify import verified
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.policy.tasks import end
from tvixstore.policy.ttl import TtlMap
from tvixstore.policy.verdict import Verdict

# Directories, and seconds, for which it is remembered who had their parents.
_DIRECTORIES = 100_000
_REMEMBERED = 600.0


@dataclass(eq=False)
class ShardDirectoryService(DirectoryService):
    """Each closure at the member that `placement` says; `names` are theirs in errors."""

    members: Sequence[DirectoryService]
    names: Sequence[str]
    placement: Rendezvous
    # Who had the parent of a Directory.
    _near: TtlMap[Digest, int] = field(
        default_factory=lambda: TtlMap(_DIRECTORIES), init=False, repr=False
    )

    async def get(self, digest: Digest) -> Directory | None:
        return (await self.get_many([digest]))[0]

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        found: dict[Digest, Directory] = {}
        verdicts = {digest: Verdict() for digest in digests}
        orders = {digest: self._order(digest) for digest in verdicts}
        for turn in range(len(self.members)):
            shares: defaultdict[int, list[Digest]] = defaultdict(list)
            for digest, order in orders.items():
                if digest not in found:
                    shares[order[turn]].append(digest)
            asking = [
                asyncio.create_task(self._ask(place, share, found, verdicts), name="ask a shard")
                for place, share in shares.items()
            ]
            try:
                for asked in asking:
                    await asked
            finally:
                await end(asking)
        for digest, verdict in verdicts.items():
            if digest not in found:
                verdict.conclude()
        return [found.get(digest) for digest in digests]

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return walk_closure(self.get_many, root)

    async def put(self, directory: Directory) -> Digest:
        return await self.members[self.place(directory.digest)].put(directory)

    async def put_many(self, directories: Sequence[Directory]) -> None:
        for root, closure in _closures(directories):
            await self.members[self.place(root)].put_many(closure)

    async def put_closure(self) -> DirectoryPutter:
        return ClosurePutter(self)

    def place(self, root: Digest) -> int:
        """The member that a closure goes to."""
        return self.placement.order(root.raw)[0]

    def _order(self, digest: Digest) -> list[int]:
        order = self.placement.order(digest.raw)
        near = self._near.get(digest)
        return order if near is None else sorted(order, key=lambda index: index != near)

    async def _ask(
        self,
        place: int,
        digests: Sequence[Digest],
        found: dict[Digest, Directory],
        verdicts: dict[Digest, Verdict],
    ) -> None:
        """Adds to `found` what that member has of `digests`, and to their verdicts what not."""
        try:
            answers = await self.members[place].get_many(digests)
            checked = [verified(each, got) for each, got in zip(digests, answers, strict=True)]
        except Exception as error:
            for digest in digests:
                verdicts[digest].failed(self.names[place], error)
            return
        for digest, directory in zip(digests, checked, strict=True):
            if directory is None:
                verdicts[digest].absent()
                continue
            found[digest] = directory
            for child in directory.children:
                self._near.put(child.digest, place, _REMEMBERED)


def _closures(directories: Sequence[Directory]) -> Iterator[tuple[Digest, list[Directory]]]:
    """Each root among `directories`, with what of them is below it, children first."""
    given = {directory.digest: directory for directory in directories}
    below = {child.digest for each in given.values() for child in each.children}
    for root in given:
        if root not in below:
            yield root, list(_below(given, root))


def _below(given: dict[Digest, Directory], root: Digest) -> Iterator[Directory]:
    done: set[Digest] = set()
    stack = [(root, iter(given[root].children))]
    while stack:
        digest, children = stack[-1]
        child = next((c for c in children if c.digest in given and c.digest not in done), None)
        if child is not None:
            stack.append((child.digest, iter(given[child.digest].children)))
            continue
        stack.pop()
        if digest not in done:
            done.add(digest)
            yield given[digest]
