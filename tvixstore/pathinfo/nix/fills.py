"""The table of fills: one download at a time of each NAR, with everybody following it.

A fill belongs to the table, not to whoever asked first: he may leave, and his deadline is not the
download's. So many download, and so many ingest, at a time; the others wait for their turns here.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import WeakKeyDictionary

from tvixstore.activity import Activity
from tvixstore.castore import SizeRule
from tvixstore.errors import StorageFull, StoreError
from tvixstore.kv import Refused
from tvixstore.kv.files import FULL
from tvixstore.log import Logger
from tvixstore.pathinfo.nix.download import Gone
from tvixstore.pathinfo.nix.fill import Fill
from tvixstore.policy.limit import Permits
from tvixstore.policy.outage import Outage
from tvixstore.policy.tracing import apart, note, take_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tvixstore.metrics import Metrics
    from tvixstore.pathinfo.nix.job import Job, Key
    from tvixstore.pathinfo.nix.upstream import NarOrigin
    from tvixstore.pools import Pools

# To ingest a NAR larger than this takes some 15 MiB of memory, however large it is: so many do it
# at a time. The others wait in their files.
LARGE = 4 << 20
LARGE_INGESTS = 4

Followed = TypeVar("Followed")

log = Logger("tvixstore.pathinfo.nix.fills")


class Admission(Protocol):
    """Guards the room in the state, and says once when there is none, and once when there is."""

    def admits(self, size: int) -> bool:
        """Whether the state takes so many bytes more."""

    def failed(self, size: int, reason: str) -> None:
        """So many bytes were to be written, and the disk was full."""


@dataclass(eq=False)
class Fills:
    """The table of all fills of a composition; `aclose` cancels them."""

    directory: Path
    pools: Pools
    metrics: Metrics
    admission: Admission | None = None
    max_downloads: int = 32
    verify_ahead: int = 1 << 20
    # How the Directories that are made of NARs state their sizes.
    sizes: SizeRule = SizeRule.DOCUMENTED
    # Where those who look see what is under way.
    activity: Activity = field(default_factory=Activity)
    _downloads: Permits = field(init=False)
    _turns: WeakKeyDictionary[NarOrigin, asyncio.Semaphore] = field(
        default_factory=WeakKeyDictionary
    )
    _large_ingests: asyncio.Semaphore = field(init=False)
    _running: dict[Key, Fill] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _unwritable: Outage = field(
        default_factory=lambda: Outage(log, "store.passing", "store.keeping")
    )

    def __post_init__(self) -> None:
        self._downloads = Permits(self.max_downloads, "max_downloads")
        self._large_ingests = asyncio.Semaphore(LARGE_INGESTS)

    def change(self, *, max_downloads: int, verify_ahead: int, sizes: SizeRule) -> None:
        """From now on it is so for what begins; what runs goes on."""
        self.max_downloads = self._downloads.count = max_downloads
        self._downloads.settle()
        self.verify_ahead = verify_ahead
        self.sizes = sizes

    async def outlast(self) -> None:
        """Returns when all fills are over that are under way now."""
        if running := set(self._tasks):
            await asyncio.wait(running)

    async def follow(
        self, job: Job, follow: Callable[[Fill], Awaitable[Followed]]
    ) -> Followed | None:
        """Follows the fill of that NAR, one under way if there is; `None` if the NAR is gone."""
        fill = self.running(job)
        if fill is not None:
            note("joined", "joined a download that was under way")
            take_in(fill.step)
        if fill is not None and fill.job.source.upstream != job.source.upstream:
            try:
                return await follow(fill)
            except (StoreError, Gone) as error:
                log.debug("fill.joined", node=job.source.upstream.name, reason=str(error))
        fill = self.running(job) or self.start(job)
        try:
            return await follow(fill)
        except Gone:
            return None

    def running(self, job: Job) -> Fill | None:
        """The fill of the same NAR that is under way, if it can still succeed.

        One that is in doubt is followed by who has nobody but its upstream to ask.
        """
        fill = self._running.get(job.key)
        if fill is None or fill.error is not None:
            return None
        return None if fill.doubted and fill.job.source.upstream != job.source.upstream else fill

    def start(self, job: Job, *, shared: bool = True) -> Fill:
        """A new fill. One that is not `shared` only passes through, for its single reader."""
        fill = Fill(self, job, keep=shared and self.admits(job))
        self.activity.begin(fill.work)
        if shared:
            self._running[job.key] = fill
        take_in(fill.step)
        # Its own context: a caller's deadline is not the download's.
        fill.task = asyncio.get_running_loop().create_task(
            fill.run(), name=f"fill {job.source.store_path}", context=apart(fill.step)
        )
        self._tasks.add(fill.task)
        fill.task.add_done_callback(lambda task: self._ended(fill, task))
        self.metrics.fills_running.inc()
        return fill

    def admits(self, job: Job) -> bool:
        """Whether what the job brings could be kept now."""
        return self.admission is None or self.admission.admits(job.source.nar_size)

    def turn_to_ingest(self, job: Job) -> AbstractAsyncContextManager[None]:
        """Held while the job's NAR is ingested. A disk may be slower than the upstreams."""
        return self._large_ingests if job.source.nar_size > LARGE else nullcontext()

    @asynccontextmanager
    async def turn_to_download(self, job: Job) -> AsyncIterator[None]:
        """Waits for a place among the downloads from that upstream, then among all downloads.

        In this order, so that those who wait for a slow upstream take nobody else's place.
        """
        upstream = job.source.upstream
        if upstream.max_downloads is None:
            async with self._place():
                yield
            return
        turns = self._turns.setdefault(upstream, asyncio.Semaphore(upstream.max_downloads))
        async with turns, self._place():
            yield

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        permit = await self._downloads.acquire()
        try:
            yield
        finally:
            permit.release()

    def forget(self, fill: Fill) -> None:
        """Takes a fill that is over out of the table."""
        if self._running.get(fill.job.key) is fill:
            del self._running[fill.job.key]

    def _ended(self, fill: Fill, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.metrics.fills_running.dec()
        self.forget(fill)
        fill.settle()

    def not_kept(self, job: Job, error: Exception) -> None:
        """What was fetched could not be written; clients are served without keeping it."""
        if isinstance(error, Refused):
            return
        full = isinstance(error, StorageFull) or getattr(error, "errno", None) in FULL
        if full and self.admission is not None:
            self.admission.failed(job.source.nar_size, str(error))
        else:
            self._unwritable.failed(error)

    def kept(self) -> None:
        """What was fetched is in the state: all is well."""
        self._unwritable.over()

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
