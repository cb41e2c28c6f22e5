"""The rest of a closure that near has only partly."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from itertools import islice

from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory.closure import Turns
from tvixstore.directory.fill import Follower
from tvixstore.directory.service import DirectoryService
from tvixstore.errors import CorruptData, Incomplete, InvalidData, StoreError, Unavailable

# Directories that near is asked for at once, and subtrees that are asked of far at a time.
_SLICE = 128
_SUBTREES = 8


@dataclass(eq=False)
class Walk:
    """Reads the closure of `root` from near, and goes on where near does not, in the same order.

    Near is asked for what is still missing. What it lacks is the root of a subtree that far is
    asked for, and all below comes from there; where it lacks a lot, far is asked for the whole.
    The followers in use go to `closing`.
    """

    reader: ClosureReader
    root: Digest
    near: DirectoryService
    far: DirectoryService
    follow: Callable[[Digest], Follower]
    closing: AsyncExitStack
    # Why near could not say whether it has something, if it couldn't.
    failure: Exception | None = None
    _begun: dict[Digest, Follower] = field(default_factory=dict)
    # Which subtree brings what has been named in it.
    _origin: dict[Digest, Follower] = field(default_factory=dict)
    # What subtrees that broke off were to bring.
    _lost: set[Digest] = field(default_factory=set)
    # Far has the closure only in part.
    _whole_failed: bool = False

    async def begin(self) -> AsyncGenerator[Directory, None]:
        """As much of the closure as near gives by itself."""
        async with aclosing(self.near.get_closure(self.root)) as closure:
            while True:
                try:
                    directory = await anext(closure, None)
                except (StoreError, OSError) as error:
                    self.failure = error
                    return
                if directory is None:
                    return
                self._feed(directory)
                yield directory

    def follow_all(self, digests: Iterable[Digest]) -> None:
        """Has them come with the whole closure from far."""
        whole = self._begin(self.root)
        self._origin |= dict.fromkeys(digests, whole)

    async def go_on(self) -> AsyncGenerator[Directory, None]:
        """What the reader has not got. Nothing where the root itself is absent."""
        turns = Turns()
        while wanted := self.reader.missing():
            for start in range(0, len(wanted), _SLICE):
                digests = wanted[start : start + _SLICE]
                unowned = [digest for digest in digests if digest not in self._origin]
                found = await self._ask_near(unowned)
                lacking = deque(digest for digest in unowned if digest not in found)
                if self._is_a_lot(lacking):
                    self.follow_all(lacking)
                    lacking.clear()
                for digest in digests:
                    directory = found.get(digest)
                    if directory is None:
                        self._look_ahead(lacking, digest)
                        directory = await self._ask_far(digest)
                    if directory is None:
                        return
                    self._feed(directory)
                    yield directory
                    await turns.take(directory)

    def _feed(self, directory: Directory) -> None:
        try:
            self.reader.feed(directory)
        except InvalidData as error:
            # Of the closure itself: no other holder has a better one.
            raise CorruptData(f"closure of {self.root}: {error}") from error

    async def _ask_near(self, digests: Sequence[Digest]) -> dict[Digest, Directory]:
        if not digests:
            return {}
        try:
            answers = await self.near.get_many(digests)
        except (StoreError, OSError):
            return await self._ask_near_one_by_one(digests)
        return {d: each for d, each in zip(digests, answers, strict=True) if each is not None}

    async def _ask_near_one_by_one(self, digests: Sequence[Digest]) -> dict[Digest, Directory]:
        """One that is lost must not make the others seem so; a near that is down is left alone."""
        found: dict[Digest, Directory] = {}
        for digest in digests:
            try:
                directory = await self.near.get(digest)
            except (CorruptData, Incomplete) as error:
                self.failure = error
            except (StoreError, OSError) as error:
                self.failure = error
                return found
            else:
                if directory is not None:
                    found[digest] = directory
        return found

    def _is_a_lot(self, lacking: Collection[Digest]) -> bool:
        """Whether the whole closure brings what is lacking sooner than subtree after subtree."""
        return not self._whole_failed and (self.root in self._begun or len(lacking) > _SUBTREES)

    def _look_ahead(self, lacking: deque[Digest], digest: Digest) -> None:
        """Has the next subtrees fetched together with the one of `digest`."""
        if lacking and lacking[0] == digest:
            for each in islice(lacking, _SUBTREES):
                self._begin(each)
            lacking.popleft()

    def _begin(self, digest: Digest) -> Follower:
        follower = self._begun.get(digest)
        if follower is None:
            follower = self._begun[digest] = self.follow(digest)
            self.closing.push_async_callback(follower.aclose)
        return follower

    async def _ask_far(self, digest: Digest) -> Directory | None:
        """The Directory from far; `None` if it is the root, and absent."""
        follower = self._origin.get(digest)
        failed: Unavailable | None = None
        if follower is not None:
            try:
                if (directory := await self._from_subtree(follower, digest)) is not None:
                    return directory
            except Incomplete:
                pass
            except Unavailable as error:
                failed = error
            # Far has lost something of this subtree, or is down; what is left of it is asked for
            # anew. Near may have it: it was not asked yet, or was given it since.
            self._whole_failed |= follower.root == self.root
            self._lost |= {d for d, each in self._origin.items() if each is follower}
            self._origin = {d: each for d, each in self._origin.items() if each is not follower}
        if digest in self._lost and (found := await self._ask_near([digest])):
            return found[digest]
        if failed is not None:
            raise failed
        try:
            directory = await self._from_subtree(self._begin(digest), digest)
        except Incomplete:
            # Far has it all the same, and near may have what far lacks below.
            self._whole_failed |= digest == self.root
            directory = await self.far.get(digest)
        if directory is None and (reason := self._why_missing(digest)) is not None:
            raise reason
        return directory

    async def _from_subtree(self, follower: Follower, digest: Digest) -> Directory | None:
        directory = await follower.take(digest, self.reader)
        if directory is not None:
            for child in directory.children:
                self._origin.setdefault(child.digest, follower)
        return directory

    def _why_missing(self, digest: Digest) -> Unavailable | None:
        """What to raise for what far does not have; `None` for a root that is absent."""
        if digest == self.root:
            return None if self.failure is None else unknown(self.failure)
        if self.failure is None or isinstance(self.failure, Incomplete):
            return Incomplete(f"Directory {digest} below {self.root} is missing", digest.raw)
        return unknown(self.failure)


def unknown(failure: Exception) -> Unavailable:
    """What is raised where near failed, and far has nothing that would make up for it."""
    if isinstance(failure, Incomplete):
        return failure
    return Unavailable(f"far does not have it, and near could not be read: {failure}")
