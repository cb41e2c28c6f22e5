"""A cache: what `near` lacks comes from `far`, and is kept in `near`.

Near is a convenience. While it cannot take or give, requests pass through to far; only its "absent"
is never made up: where near could not say and far has nothing, the answer is unknown. Far is not
believed: each Directory is hashed, and a closure held together, before near shows it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

from tvixstore.activity import Activity
from tvixstore.castore import ClosureReader, Digest, Directory
from tvixstore.directory.fill import ClosureFills
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.directory.verify import VerifyDirectoryService
from tvixstore.directory.walk import Walk, unknown
from tvixstore.errors import CorruptData, Incomplete, StoreError
from tvixstore.kv import Holds
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.policy.outage import Outage
from tvixstore.policy.single_flight import SingleFlight

# How a store fails: as it says, or as the system below it says.
_FAILURES = (StoreError, OSError)

log = Logger("tvixstore.directory.cached")


@dataclass(eq=False)
class CachedDirectoryService(DirectoryService):
    """`near` in front of `far`. Whoever built it closes it: fills under way belong to it."""

    near: DirectoryService
    far: DirectoryService
    metrics: Metrics | None = field(default=None, repr=False)
    # Keep in near what fills find there.
    holds: Holds | None = field(default=None, repr=False)
    # What far is called, and where those who look see what is under way.
    source: str = field(default="", repr=False)
    activity: Activity = field(default_factory=Activity, repr=False)
    _fills: ClosureFills = field(init=False, repr=False)
    _checked: VerifyDirectoryService = field(init=False, repr=False)
    _fetching: SingleFlight[Digest, Directory | None] = field(
        default_factory=SingleFlight, init=False, repr=False
    )
    _reading: Outage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._fills = ClosureFills(
            self.near, self.far, self.metrics, self.holds, self.source, self.activity
        )
        self._checked = VerifyDirectoryService(self.far)
        self._reading = Outage(log, "cache.near_unreadable", "cache.near_readable")

    async def get(self, digest: Digest) -> Directory | None:
        directory, failure = await self._ask_near(digest)
        if directory is not None:
            return directory
        directory = await self._fetching.run(digest, lambda: self._fetch(digest))
        if directory is None and failure is not None:
            raise unknown(failure)
        return directory

    async def get_many(self, digests: Sequence[Digest]) -> list[Directory | None]:
        try:
            found = await self.near.get_many(digests)
        except _FAILURES:
            # One of them may be the reason; `get` asks for each, and says what is wrong.
            return [await self.get(digest) for digest in digests]
        self._reading.over()
        missing = [digest for digest, each in zip(digests, found, strict=True) if each is None]
        if not missing:
            return found
        fetched = await self._checked.get_many(missing)
        await self._keep([each for each in fetched if each is not None])
        rest = iter(fetched)
        return [next(rest) if each is None else each for each in found]

    async def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        async with AsyncExitStack() as closing:
            walk = Walk(
                ClosureReader(root), root, self.near, self._checked, self._fills.follow, closing
            )
            if self._fills.is_running(root):
                # What is on its way is in near only in part.
                walk.follow_all([root])
            else:
                async with aclosing(walk.begin()) as begun:
                    async for directory in begun:
                        yield directory
                if walk.failure is not None:
                    self._let_down(root, walk.failure)
            async with aclosing(walk.go_on()) as rest:
                async for directory in rest:
                    yield directory

    async def put(self, directory: Directory) -> Digest:
        return await self.near.put(directory)

    async def put_many(self, directories: Sequence[Directory]) -> None:
        await self.near.put_many(directories)

    async def put_closure(self) -> DirectoryPutter:
        return await self.near.put_closure()

    async def aclose(self) -> None:
        """Ends the fills and fetches under way."""
        await self._fills.aclose()
        await self._fetching.aclose()

    async def _ask_near(self, digest: Digest) -> tuple[Directory | None, Exception | None]:
        """What near has, and why it could not say."""
        try:
            directory = await self.near.get(digest)
        except _FAILURES as error:
            return None, self._let_down(digest, error)
        self._reading.over()
        return directory, None

    def _let_down(self, digest: Digest, error: Exception) -> Exception:
        """Notes that near could not give the Directory, or all of the closure."""
        if isinstance(error, CorruptData):
            log.warning("cache.content_lost", key=digest, reason=error)
        elif not isinstance(error, Incomplete):
            self._reading.failed(error)
        return error

    async def _fetch(self, digest: Digest) -> Directory | None:
        directory = await self._checked.get(digest)
        if directory is not None:
            await self._keep([directory])
        return directory

    async def _keep(self, directories: Sequence[Directory]) -> None:
        if not directories:
            return
        try:
            await self.near.put_many(directories)
        except _FAILURES as error:
            self._fills.keeping.failed(error)
        else:
            self._fills.keeping.over()
