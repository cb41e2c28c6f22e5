"""Fills: one download at a time of each NAR, in a task of its own, with everybody following it.

A fill belongs to the table, not to whoever asked first. It downloads into a spool, waiting for
nobody; when the NAR has turned out right it is ingested from the spool (chunks, blobs, Directories)
and its path info goes to whoever asked for it. Nothing of a failed or lying download is kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from tvixstore import nar
from tvixstore.activity import Phase, Work, following
from tvixstore.errors import CorruptData, InvalidData, StorageFull, StoreError, Unavailable
from tvixstore.log import Logger
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.nix.download import Download, Gone
from tvixstore.policy.elsewhere import is_elsewhere
from tvixstore.policy.spool import Spool
from tvixstore.policy.tracing import Label, clock, shared, spell

if TYPE_CHECKING:
    from tvixstore.castore import Node
    from tvixstore.kv import Hold
    from tvixstore.nix import StorePath
    from tvixstore.pathinfo.nix.fills import Fills
    from tvixstore.pathinfo.nix.job import Job
    from tvixstore.pathinfo.service import PathInfoService

# Nobody listens any more: finish if no more than this is missing, otherwise wait a little and stop.
FINISH_BELOW = 64 << 20
LINGER = 10.0
# Seconds that whoever looks at it afterwards may want to know of.
NOTICED = 0.01

log = Logger("tvixstore.pathinfo.nix.fill")


class Fill:
    """One NAR on its way in. Runs as a task of its table."""

    def __init__(self, table: Fills, job: Job, *, keep: bool) -> None:
        self.job = job
        self.work = Work("nar", job.source.store_path, job.source.upstream.name, self)
        self.node: Node | None = None
        self.error: StoreError | Gone | None = None
        self.task: asyncio.Task[None] | None = None
        # What is told of it, in a trace that all who follow it take in.
        name = job.source.upstream.name
        self.step = shared(Label(name, "download"), "download")
        # Wakes those who wait for the content: it is decided, or has come into doubt.
        self._news = asyncio.Event()
        self.spool = Spool(
            table.directory,
            table.pools.files,
            on_idle=self.check_idle,
            on_pass=self._will_not_keep,
            on_doubt=self._news.set,
        )
        self._table = table
        self._download = Download(
            job.source,
            self.spool,
            table.pools,
            table.verify_ahead,
            on_spool_failure=lambda error: table.not_kept(job, error),
            on_phase=self._downloads,
        )
        # By path, too: several paths can have one NAR.
        self._into: dict[tuple[PathInfoService, StorePath], Description] = {}
        self._not_kept = "the store takes no more; free some space or raise max_size"
        # Whether it is known that the content is in, or will not be.
        self._decided = False
        self._waiting = 0
        # Of the content that came in, for those who wait for it.
        self._hold: Hold | None = None
        self._downloading = True
        self._ingesting = False
        # Whether whoever began it follows it, so that the next one joins.
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None
        if not keep:
            self.spool.pass_through()

    def put_into(self, service: PathInfoService | None, description: Description) -> None:
        """Has the path info put into `service` when the content is in."""
        if service is not None and not self._decided:
            self._into[service, description.store_path] = description

    def measured(self) -> tuple[int, int | None, int]:
        """See `activity.Measured`."""
        # The ingest's reader follows nobody's wish.
        readers = self.spool.readers - self._ingesting + self._waiting
        return self._download.received, self.job.source.nar_size, max(0, readers)

    def is_joined(self) -> bool:
        """Whether the caller, who follows it from now on, found it under way."""
        joined, self._begun = self._begun, True
        return joined

    async def content(self) -> Node:
        """Waits until the content is in, and returns its root; raises what went wrong, or
        `Doubted` where something did and the caller has somebody else to turn to (`elsewhere`)."""
        self._waiting += 1
        try:
            with following(self.work, joined=self.is_joined()):
                await self._decision()
            if self.node is not None:
                # Whoever waited for it is going to refer to it.
                await self.job.content.take(self.node)
        finally:
            self._waiting -= 1
            self.check_idle()
            self._let_go()
        if self.node is not None:
            return self.node
        if self.error is not None:
            raise self.error
        raise StorageFull(f"{self._where} could not be kept: {self._not_kept}")

    async def _decision(self) -> None:
        patient = not is_elsewhere()
        while not self._decided:
            if self.spool.doubt is not None and not patient:
                raise self.spool.doubt
            self._news.clear()
            await self._news.wait()

    def _decide(self) -> None:
        self._decided = True
        self._news.set()

    def check_idle(self) -> None:
        """Starts or stops the clock for a download that nobody follows."""
        if self._followed or not self._downloading:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            delay = 0.0 if self.spool.passing else LINGER
            self._timer = asyncio.get_running_loop().call_later(delay, self._stop_if_idle)

    def _stop_if_idle(self) -> None:
        self._timer = None
        missing = self.job.source.nar_size - self._download.received
        worth_it = missing <= FINISH_BELOW and not self.spool.passing and not self.doubted
        if self._downloading and not self._followed and not worth_it and self.task is not None:
            # Ending takes a while, and whoever comes meanwhile must not join what is ending.
            self._table.forget(self)
            self.task.cancel()

    def _let_go(self) -> None:
        """Holds the content no longer than until all who waited for it hold it themselves."""
        if self._hold is not None and not self._waiting and self._decided:
            self._hold.release()

    def _will_not_keep(self) -> None:
        """The spool only passes. Who waits for the content does not read, and so would wait, with
        the download, for readers that there may be none of."""
        self._decide()
        self.check_idle()
        if self.work.phase == "downloading":
            self.work.enter("passing")

    def _downloads(self, phase: Phase, reason: str | None = None) -> None:
        """The download is in `phase` now."""
        self.work.enter(
            "passing" if phase == "downloading" and self.spool.passing else phase, reason
        )

    async def run(self) -> None:
        """Downloads, verifies, ingests. Never raises: the outcome is in `node` and `error`."""
        outcome: Literal["done", "passed", "failed", "cancelled"] = "failed"
        try:
            await self._fetch()
            outcome = await self._ingest()
        except Gone as error:
            self._fail(Unavailable(f"{self._where} is gone"), error)
        except StoreError as error:
            self._fail(error, error)
        except asyncio.CancelledError:
            outcome = "cancelled"
            self.error = Unavailable(f"{self._where}: the download was stopped")
            self.spool.fail(self.error)
            raise
        except Exception as error:
            log.error("fill.crashed", exc_info=error, key=self.job.source.store_path)
            self._fail(Unavailable(f"{self._where}: internal error, see the log"), None)
        finally:
            self._downloading = False
            self.check_idle()
            self._table.forget(self)
            self._table.metrics.fills.labels(outcome).inc()
            self._end(outcome)
            self._tell_of_end(outcome)
            self._decide()
            self._let_go()
            await self.spool.release()

    def _end(self, outcome: Literal["done", "passed", "failed", "cancelled"]) -> None:
        if isinstance(self.error, Gone):
            self.work.enter("absent")
        else:
            self.work.enter(outcome, None if self.error is None else str(self.error))

    def _tell_of_end(self, outcome: str) -> None:
        source = self.job.source
        text = f"{self._download.received} of {source.nar_size} bytes of the NAR"
        self.step.note("download.nar", f"{text}, compressed by {source.compression}")
        self.step.end(outcome)
        if outcome == "passed":
            self.step.reason = self._not_kept
        elif isinstance(self.error, Gone):
            self.step.reason = "it does not have the NAR any more"
        elif self.error is not None:
            self.step.reason = str(self.error)
        self.step.opened().is_open = False

    @property
    def _followed(self) -> bool:
        return bool(self.spool.readers or self._waiting)

    @property
    def _where(self) -> str:
        return f"{self.job.source.upstream.name}: NAR of {self.job.source.store_path}"

    async def _fetch(self) -> None:
        came = clock()
        async with self._table.turn_to_download(self.job):
            if (waited := clock() - came) > NOTICED:
                text = f"waited {spell(waited)} for a place among the downloads"
                self.step.note("download.waited", text, waited)
            await self._download.run()
        self._downloading = False
        self.check_idle()
        if self.job.proof is not None:
            if not self.spool.whole:
                raise StorageFull(
                    f"{self._where} is content-addressed and unsigned: it cannot be checked "
                    "without room to keep it; free some space or raise max_size"
                )
            self.work.enter("verifying")
            await self._table.pools.cpu.run(self.job.proof, self.spool.pieces())
        self.spool.finish()

    async def _ingest(self) -> Literal["done", "passed"]:
        if self.spool.passing:
            return "passed"
        self.work.enter("ingesting")
        try:
            with self.job.content.session():
                return await self._keep()
        finally:
            self._ingesting = False

    async def _keep(self) -> Literal["done", "passed"]:
        try:
            async with self._table.turn_to_ingest(self.job), self.spool.open_reader() as reader:
                self._ingesting = True
                self.node = await nar.ingest(
                    self.job.content,
                    reader,
                    pools=self._table.pools,
                    spool=self._table.directory,
                    sizes=self._table.sizes,
                )
        except (CorruptData, InvalidData) as error:
            # The NAR is what was promised, and is no NAR: the upstream's fault, not the state's.
            raise CorruptData(f"{self._where} cannot be unpacked: {error}") from error
        except (Unavailable, OSError) as error:
            self._not_kept = str(error)
            self._table.not_kept(self.job, error)
            return "passed"
        self._hold = await self.job.content.hold(self.node)
        # More may ask for it meanwhile, so the table of takers is looked at anew each time.
        while self._into:
            (service, _), description = self._into.popitem()
            try:
                await service.put(PathInfo.of(description, self.node))
            except (StoreError, OSError) as error:
                self._table.not_kept(self.job, error)
                return "passed"
        self._table.kept()
        return "done"

    @property
    def doubted(self) -> bool:
        """Whether it has had a failure that trying again has not mended yet."""
        return self.spool.doubt is not None

    def settle(self) -> None:
        """Lets nobody wait for a task that was cancelled before its first step."""
        if self._downloading:
            self.error = Unavailable(f"{self._where}: the download was stopped")
            self.spool.fail(self.error)
            self._end("cancelled")
            self._decide()
        if self.step.ended is None:
            self._tell_of_end("cancelled")

    def _fail(self, shown: StoreError, error: StoreError | Gone | None) -> None:
        self.error = error or shown
        self.spool.fail(shown)
        reason = f"{self._where} is gone" if isinstance(error, Gone) else str(shown)
        log.warning(
            "fill.failed",
            node=self.job.source.upstream.name,
            key=self.job.source.store_path,
            bytes=self._download.received,
            reason=reason,
        )
        if error is not None:
            self.job.on_failure(error)
