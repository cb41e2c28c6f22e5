"""Fills: one fetch at a time of each blob, in a task of its own, with everybody following it.

A fill belongs to the table, not to whoever asked first. It asks far for the chunk list, takes the
chunks that near has and fetches the others, several at once; what comes goes, in order and
verified, to a writer of near and to a spool, which readers follow at their own pace. Near shows the
blob once the whole of it turned out right. While near takes nothing, the fill passes: the spool is
a bounded window then, and the fastest reader paces it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tvixstore.activity import Activity, follow
from tvixstore.blob.checked import CheckedStream
from tvixstore.blob.outline import PIECE, Outline, outline_of, size_of
from tvixstore.blob.read_ahead import ReadAhead
from tvixstore.blob.service import BlobService, BlobWriter
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData, StoreError, Unavailable
from tvixstore.kv import Holds
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.policy.filling import Fill, Filling
from tvixstore.policy.outage import Outage
from tvixstore.policy.spool import Overrun, Spool
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream

# Chunks fetched at once, and their bytes: what keeps 1 Gbit/s at 20 ms busy.
CHUNKS_AHEAD = 16
BYTES_AHEAD = 8 << 20
# What goes into the spool at a time.
_SLICE = 1 << 20

log = Logger("tvixstore.blob.fill")


class BlobFill(Fill):
    """One blob on its way in."""

    def __init__(self, fills: BlobFills, digest: Digest, size: int | None) -> None:
        super().__init__(f"blob {digest}", fills.source)
        self.digest = digest
        self.spool = Spool(fills.directory, fills.pools.files, on_idle=self.check_idle)
        self._fills = fills
        # How many bytes it will be, as far as anybody says so.
        self._total = size
        self._short = size is not None and size <= PIECE
        self._present: bool | None = None
        self._kept = False
        self._writer: BlobWriter | None = None

    async def found(self) -> bool:
        """Whether far has the blob, once it said so; raises if it could not say."""
        await self.until(lambda: self._present is not None)
        return self._present is True

    async def kept(self) -> bool:
        """Waits until near has the blob; `False` where that will not be. Raises what went wrong."""
        await self.until(lambda: self._kept or self.passing or self.over)
        if self.error is not None and not self._kept:
            raise self.error
        return self._kept

    async def _fill(self) -> str | None:
        holds = self._fills.holds
        try:
            # What near has of it stays until the list of chunks refers to it.
            with nullcontext() if holds is None else holds.session():
                return await self._fetch()
        finally:
            await self._abandon()
            await self.spool.release()

    async def _fetch(self) -> str | None:
        """The outcome; `None` if far does not have the blob."""
        outline = None
        if not self._short:
            chunks = await self._fills.far.chunks(self.digest)
            if chunks is None:
                self._present = False
                return None
            outline = outline_of(chunks)
        source = await self._open(outline)
        if source is None:
            self._present = False
            return None
        async with CheckedStream(
            self.digest, source, outline, partial(self._fills.on_right, self.digest)
        ) as checked:
            await checked.ready()
            self._present = True
            self.work.enter("downloading")
            self.tell()
            await self._begin_to_keep(outline)
            async for piece in checked:
                await self._take(piece)
        self.spool.finish()
        if not self.passing:
            self.work.enter("ingesting")
        return "done" if await self._publish() else "passed"

    async def _open(self, outline: Outline | None) -> ByteStream | None:
        """The blob from far, or by its outline from near and far."""
        if outline is None:
            return await self._fills.far.open_read(self.digest, size=self._total)
        self._total = size_of(outline)
        return ReadAhead(
            [(chunk.digest.raw, chunk.size) for chunk in outline],
            self._chunk,
            0,
            self._total,
            chunks_ahead=CHUNKS_AHEAD,
            bytes_ahead=BYTES_AHEAD,
        )

    async def _chunk(self, entry: tuple[bytes, int]) -> bytes:
        """One chunk of the list; it is verified with the stream that it becomes part of."""
        digest, size = Digest(entry[0]), entry[1]
        try:
            data = await self._fills.near.read(digest, size)
        except (StoreError, OSError) as error:
            log.debug("fill.near_unreadable", key=digest, reason=error)
        else:
            if data is not None and len(data) == size:
                return data
        stream = await self._fills.far.open_read(digest, size=size)
        if stream is None:
            raise Unavailable(f"blob {self.digest}: chunk {digest} of its list is not to be had")
        parts, left = [], size
        async with stream:
            async for part in stream:
                parts.append(part)
                left -= len(part)
                if left < 0:
                    break
        if left:
            raise CorruptData(f"blob {self.digest}: chunk {digest} is not {size} bytes long")
        return b"".join(parts)

    async def _begin_to_keep(self, outline: Outline | None) -> None:
        boundaries = None if outline is None else [chunk.size for chunk in outline]
        try:
            self._writer = await self._fills.near.open_write(boundaries)
        except (StoreError, OSError) as error:
            await self._pass(error)

    async def _take(self, piece: bytes) -> None:
        if self._writer is not None:
            try:
                await self._writer.write(piece)
            except (StoreError, OSError) as error:
                await self._pass(error)
        for begin in range(0, len(piece), _SLICE):
            part = piece[begin : begin + _SLICE]
            await self._spool(part)
            self.spool.publish([part], self.spool.size + len(part))
            await self.spool.room()
        if self._total is not None and self.spool.size > self._total:
            # It was a hint, and wrong. It may have no end, and is not finished for nobody.
            self._total = None
            self.check_idle()

    async def _spool(self, part: bytes) -> None:
        spool = self.spool
        try:
            if spool.size + len(part) > spool.memory and not spool.passing:
                await self._fills.pools.files.run(spool.store, [part])
        except OSError as error:
            log.warning(
                "spool.passing",
                key=self.digest,
                reason=f"cannot write the spool: {error}; streaming through a window",
            )
            self._pass_through()

    async def _publish(self) -> bool:
        """Has near show the blob; whether it does."""
        if self._writer is None:
            return False
        try:
            await self._writer.close()
        except (StoreError, OSError) as error:
            await self._pass(error)
            return False
        self._kept = True
        self._fills.keeping.over()
        return True

    async def _pass(self, error: Exception) -> None:
        """Goes on without near, which takes nothing."""
        self._fills.keeping.failed(error)
        self._pass_through()
        await self._abandon()

    async def _abandon(self) -> None:
        """Has near forget what it was given, unless it shows it already."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                await writer.abort()
            except (StoreError, OSError) as error:
                log.warning("fill.not_aborted", key=self.digest, reason=error)

    def _pass_through(self) -> None:
        self.passing = True
        self.work.enter("passing")
        self.spool.pass_through()
        self.tell()

    def _left(self) -> int | None:
        return None if self._total is None else self._total - self.spool.size

    def _came(self) -> int:
        return self.spool.size

    def _readers(self) -> int:
        return self.spool.readers

    def _is_whole(self) -> bool:
        return self._present is False or self.spool.finished

    def _broken(self, error: StoreError) -> None:
        self.spool.fail(error)
        if not self.over and (self._present or isinstance(error, CorruptData)):
            # Of what failed before, whoever asked hears, and far's own guards. One that was
            # stopped has not failed.
            log.warning("fill.failed", key=self.digest, bytes=self.spool.size, reason=error)


@dataclass(eq=False)
class BlobFills:
    """The fills of one cache; `aclose` cancels them."""

    near: BlobService
    far: BlobService
    directory: Path
    pools: Pools
    # Told when a blob was verified as a whole, and of what pieces.
    on_right: Callable[[Digest, Outline], None]
    metrics: Metrics | None = None
    holds: Holds | None = None
    # What far is called, and where those who look see what is under way.
    source: str = ""
    activity: Activity = field(default_factory=Activity)
    keeping: Outage = field(
        default_factory=lambda: Outage(log, "cache.near_unwritable", "cache.near_writable")
    )

    def __post_init__(self) -> None:
        self._filling: Filling[Digest, BlobFill] = Filling(self.metrics, self.activity)

    def of(self, digest: Digest, size: int | None) -> BlobFill:
        """The fill of that blob that is under way, or a new one. `size` is a hint."""
        fill = self._filling.running(digest)
        if fill is None or fill.passing:
            # One that passes may be beyond its beginning, and near may take something again.
            fill = BlobFill(self, digest, size)
            self._filling.start(digest, fill)
        return fill

    async def aclose(self) -> None:
        """Stops what is under way; its readers get `Unavailable`."""
        await self._filling.aclose()


class FilledStream(ByteStream):
    """Follows a fill; left behind by one that only passes, it takes the rest from `resume`."""

    def __init__(
        self, fill: BlobFill, resume: Callable[[int], Coroutine[Any, Any, ByteStream]]
    ) -> None:
        self._fill = fill
        self._resume = resume
        self._reader = fill.spool.open_reader()
        self._stream: ByteStream = self._reader
        self._follows = follow(fill.work, joined=fill.is_joined())

    async def ready(self) -> bool:
        """Waits for the first byte; `False` if there is no such blob. Raises what broke."""
        if not await self._fill.found():
            return False
        await self._reader.ready()
        return True

    async def __anext__(self) -> bytes:
        try:
            return await self._stream.__anext__()
        except Overrun:
            if self._stream is not self._reader:
                raise
            self._stream = await self._resume(self._reader.position)
            await self._reader.aclose()
            return await self._stream.__anext__()

    async def aclose(self) -> None:
        if self._follows is not None:
            self._follows.close()
        await self._stream.aclose()
        await self._reader.aclose()
