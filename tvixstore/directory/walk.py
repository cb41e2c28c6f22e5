"""The rest of a closure that near has only partly."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice

from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory.fill import Follower
from tvixstore.directory.service import DirectoryService
from tvixstore.errors import CorruptData, Incomplete, InvalidData, StoreError, Unavailable

# Directories that near is asked for at once, and subtrees that are asked of far at a time.
_SLICE = 128
_SUBTREES = 8


@dataclass(eq=False)
class Walk:
    """Goes on with the closure of `root` where near did not, in the order of the naming.

    Near is asked for what is still missing. What it lacks is the root of a subtree that far is
    asked for, and all below comes from there. The followers in use go to `closing`.
    """

    root: Digest
    near: DirectoryService
    follow: Callable[[Digest], Follower]
    closing: AsyncExitStack
    # Why near could not say whether it has something, if it couldn't.
    failure: Exception | None = None
    _begun: dict[Digest, Follower] = field(default_factory=dict)
    # Which subtree brings what has been named in it.
    _origin: dict[Digest, Follower] = field(default_factory=dict)

    async def go_on(self, reader: ClosureReader) -> AsyncGenerator[Directory, None]:
        """What `reader` has not got. Nothing where the root itself is absent."""
        while wanted := reader.missing():
            for start in range(0, len(wanted), _SLICE):
                digests = wanted[start : start + _SLICE]
                unowned = [digest for digest in digests if digest not in self._origin]
                found = await self._ask_near(unowned)
                lacking = deque(digest for digest in unowned if digest not in found)
                for digest in digests:
                    directory = found.get(digest)
                    if directory is None:
                        self._look_ahead(lacking, digest)
                        directory = await self._ask_far(digest)
                    if directory is None:
                        return
                    feed(reader, self.root, directory)
                    yield directory

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
        if follower is not None:
            try:
                directory = await follower.take(digest)
            except Incomplete:
                # Far has lost something of this subtree; what is left of it is asked for anew.
                self._origin = {d: each for d, each in self._origin.items() if each is not follower}
                directory = (await self._ask_near([digest])).get(digest)
                if directory is not None:
                    return directory
                follower = None
        if follower is None:
            follower = self._begin(digest)
            directory = await follower.take(digest)
        if directory is None:
            if (reason := self._why_missing(digest)) is not None:
                raise reason
            return None
        for child in directory.children:
            self._origin.setdefault(child.digest, follower)
        return directory

    def _why_missing(self, digest: Digest) -> Unavailable | None:
        """What to raise for what far does not have; `None` for a root that is absent."""
        if self.failure is not None and not isinstance(self.failure, Incomplete):
            return unknown(self.failure)
        if digest == self.root:
            return None
        return Incomplete(f"Directory {digest} below {self.root} is missing", digest.raw)


def feed(reader: ClosureReader, root: Digest, directory: Directory) -> None:
    """Raises `CorruptData` where `directory` is not of the closure, or contradicts it."""
    try:
        reader.feed(directory)
    except InvalidData as error:
        raise CorruptData(f"closure of {root}: {error}") from error


def unknown(failure: Exception) -> Unavailable:
    """What is raised where near failed, and far has nothing that would make up for it."""
    if isinstance(failure, Incomplete):
        return failure
    return Unavailable(f"far does not have it, and near could not be read: {failure}")
