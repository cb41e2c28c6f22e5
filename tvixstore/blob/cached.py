"""A cache: what `near` lacks comes from `far`, and is kept in `near`.

Near is a convenience. While it cannot take or give, requests pass through to far; only its "absent"
is never made up: where near could not say and far has nothing, the answer is unknown. Far is not
believed: what comes from there is hashed before its last piece goes out and before near shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tvixstore.activity import Activity, following
from tvixstore.blob.fill import BlobFills, FilledStream
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.blob.verify import VerifyBlobService
from tvixstore.castore import EMPTY_DIGEST, Digest, FileNode
from tvixstore.errors import CorruptData, Incomplete, StoreError, Unavailable
from tvixstore.kv import Holds
from tvixstore.log import Logger
from tvixstore.metrics import Metrics
from tvixstore.policy.outage import Outage
from tvixstore.pools import Pools
from tvixstore.streams import BytesStream, ByteStream

# How a store fails: as it says, or as the system below it says.
_FAILURES = (StoreError, OSError)

log = Logger("tvixstore.blob.cached")


@dataclass(eq=False)
class CachedBlobService(BlobService):
    """`near` in front of `far`; long blobs on their way are spooled to files in `directory`.

    Whoever built it closes it: fills under way belong to it.
    """

    near: BlobService
    far: BlobService
    directory: Path = field(repr=False)
    pools: Pools = field(repr=False)
    metrics: Metrics | None = field(default=None, repr=False)
    # Keep in near what fills find there.
    holds: Holds | None = field(default=None, repr=False)
    # What far is called, and where those who look see what is under way.
    source: str = field(default="", repr=False)
    activity: Activity = field(default_factory=Activity, repr=False)
    _checked: VerifyBlobService = field(init=False, repr=False)
    _fills: BlobFills = field(init=False, repr=False)
    _reading: Outage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._checked = VerifyBlobService(self.far)
        self._fills = BlobFills(
            self.near,
            self.far,
            self.directory,
            self.pools,
            self._checked.know,
            self.metrics,
            self.holds,
            self.source,
            self.activity,
        )
        self._reading = Outage(log, "cache.near_unreadable", "cache.near_readable")

    async def has(self, digest: Digest) -> bool:
        if digest == EMPTY_DIGEST:
            return True
        failure: Exception | None = None
        try:
            if await self.near.has(digest):
                return True
        except _FAILURES as error:
            failure = self.let_down(digest, error)
        if await self.far.has(digest):
            return True
        if failure is not None:
            raise _unknown(failure)
        return False

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        # Near is what is written to.
        return await self.near.lacking(digests)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        if digest == EMPTY_DIGEST:
            return []
        failure: Exception | None = None
        try:
            if (chunks := await self.near.chunks(digest)) is not None:
                return chunks
        except _FAILURES as error:
            failure = self.let_down(digest, error)
        chunks = await self.far.chunks(digest)
        if chunks is None and failure is not None:
            raise _unknown(failure)
        return chunks

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if digest == EMPTY_DIGEST:
            return BytesStream()
        failure: Exception | None = None
        try:
            stream = await self.near.open_read(digest, offset, length, size)
        except _FAILURES as error:
            failure = self.let_down(digest, error)
        else:
            self._reading.over()
            if stream is not None:
                return _MendedStream(self, digest, stream, offset, length)
        stream = await self._open_far(digest, offset, length, size)
        if stream is None and failure is not None:
            raise _unknown(failure)
        return stream

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        try:
            data = await self.near.read(digest, size)
        except _FAILURES:
            # Said, and made up for, below.
            data = None
        if data is not None:
            self._reading.over()
            return data
        return await super().read(digest, size)

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        try:
            return await self.near.at_hand(files)
        except _FAILURES:
            # Said, and made up for, when they are read.
            return await super().at_hand(files)

    async def _open_far(
        self, digest: Digest, offset: int, length: int | None, size: int | None
    ) -> ByteStream | None:
        """What near does not give, by way of a fill, from `offset` on."""
        fill = self._fills.of(digest, size)
        if not offset and length is None:
            filled = FilledStream(fill, partial(self._resume, digest))
            try:
                if await filled.ready():
                    return filled
            except BaseException:
                await filled.aclose()
                raise
            await filled.aclose()
            return None
        # A part is read by chunks that were verified with the whole: in near, once it is there.
        with following(fill.work, joined=fill.is_joined()):
            if not await fill.found():
                return None
            kept = await fill.kept()
        if kept:
            try:
                stream = await self.near.open_read(digest, offset, length, size)
            except _FAILURES as error:
                self.let_down(digest, error)
            else:
                if stream is not None:
                    return _MendedStream(self, digest, stream, offset, length)
        return await self._checked.open_read(digest, offset, length, size)

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await self.near.open_write(boundaries)

    async def put(self, data: bytes) -> Digest:
        return await self.near.put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self.near.put_many(blobs)

    async def put_lacking(self, blobs: Mapping[Digest, bytes]) -> int:
        return await self.near.put_lacking(blobs)

    async def aclose(self) -> None:
        """Ends the fills under way."""
        await self._fills.aclose()

    def let_down(self, digest: Digest, error: Exception) -> Exception:
        """Notes that near could not give the blob."""
        if isinstance(error, Incomplete | CorruptData):
            # Of this blob alone, and mended by the fill that comes of it.
            log.warning("cache.content_lost", key=digest, reason=error)
        else:
            self._reading.failed(error)
        return error

    async def go_on(self, digest: Digest, position: int, end: int | None) -> ByteStream | None:
        """The rest of a stream that near could not bring to its end, straight from far."""
        if end is None:
            return await self._checked.resume(digest, position)
        return await self._checked.open_read(digest, position, end - position)

    async def _resume(self, digest: Digest, position: int) -> ByteStream:
        stream = await self._checked.resume(digest, position)
        if stream is None:
            raise Unavailable(f"far does not have {digest} any more")
        return stream


def _unknown(failure: Exception) -> Unavailable:
    """What is raised where near failed, and far has nothing that would make up for it."""
    if isinstance(failure, Incomplete):
        return failure
    return Unavailable(f"far does not have it, and near could not be read: {failure}")


class _MendedStream(ByteStream):
    """A blob from near, that goes on from far where near turns out to have lost a piece."""

    def __init__(
        self,
        cache: CachedBlobService,
        digest: Digest,
        stream: ByteStream,
        offset: int,
        length: int | None,
    ) -> None:
        self._cache = cache
        self._digest = digest
        self._stream = stream
        self._position = offset
        self._end = None if length is None else offset + length
        self._mended = False

    async def __anext__(self) -> bytes:
        try:
            part = await self._stream.__anext__()
        except _FAILURES as error:
            if self._mended:
                raise
            await self._go_on_from_far(error)
            part = await self._stream.__anext__()
        self._position += len(part)
        return part

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _go_on_from_far(self, error: Exception) -> None:
        self._mended = True
        self._cache.let_down(self._digest, error)
        await self._stream.aclose()
        stream = await self._cache.go_on(self._digest, self._position, self._end)
        if stream is None:
            raise _unknown(error)
        self._stream = stream
