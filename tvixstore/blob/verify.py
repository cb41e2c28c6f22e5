"""Believes nothing: what comes is hashed before it goes out."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.blob.checked import CheckedStream, PartStream, clip, covering
from tvixstore.blob.outline import Outline
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.policy.lru import Lru
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.streams import BytesStream, ByteStream

# Pieces of blobs whose outlines are remembered, some 200 bytes each.
_PIECES = 100_000


@dataclass(eq=False)
class VerifyBlobService(BlobWrapper):
    """Hashes everything that comes from `inner`; what is wrong is `CorruptData`.

    A part of a blob is verified by an outline, which is drawn, and remembered, by hashing the whole
    blob first. A chunk list remains a claim of inner's: each chunk is verified when it is read, and
    whoever joins them hashes the whole.
    """

    _outlines: Lru[Digest, Outline] = field(
        default_factory=lambda: Lru(_PIECES), init=False, repr=False
    )
    _learning: SingleFlight[Digest, Outline | None] = field(
        default_factory=SingleFlight, init=False, repr=False
    )

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if not offset and length is None:
            return await self._open_whole(digest, size)
        outline = self._outlines.get(digest)
        if outline is None:
            outline = await self._learning.run(digest, lambda: self._learn(digest, size))
        return None if outline is None else await self._open_part(digest, outline, offset, length)

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        stream = await self._open_whole(digest, size)
        return None if stream is None else await stream.read_all()

    async def resume(self, digest: Digest, offset: int) -> ByteStream | None:
        """The rest of a whole blob, for a reader who has all that comes before `offset`.

        Other than of a part, only its last piece has to wait for the blob to turn out right.
        """
        outline = self._outlines.get(digest)
        if outline is not None:
            return await self._open_part(digest, outline, offset, None)
        stream = await self._open_whole(digest, None)
        return None if stream is None else _Rest(stream, offset)

    def know(self, digest: Digest, outline: Outline) -> None:
        """Remembers an outline that was verified along with the blob."""
        self._outlines.put(digest, outline, len(outline))

    async def _open_whole(self, digest: Digest, size: int | None) -> ByteStream | None:
        stream = await self.inner.open_read(digest, size=size)
        if stream is None:
            return None
        return CheckedStream(digest, stream, on_right=lambda outline: self.know(digest, outline))

    async def _learn(self, digest: Digest, size: int | None) -> Outline | None:
        stream = await self.inner.open_read(digest, size=size)
        if stream is None:
            return None
        learnt: list[Outline] = []
        async with CheckedStream(digest, stream, on_right=learnt.append) as checked:
            async for _ in checked:
                pass
        self.know(digest, learnt[0])
        return learnt[0]

    async def _open_part(
        self, digest: Digest, outline: Outline, offset: int, length: int | None
    ) -> ByteStream | None:
        wanted = clip(outline, offset, length)
        if not wanted:
            return BytesStream()
        begin, span = covering(outline, offset, wanted)
        stream = await self.inner.open_read(digest, begin, span)
        if stream is None:
            return None
        return PartStream(digest, stream, outline, offset, wanted)


class _Rest(ByteStream):
    """A stream without its first `skip` bytes."""

    def __init__(self, stream: ByteStream, skip: int) -> None:
        self._stream = stream
        self._skip = skip

    async def __anext__(self) -> bytes:
        while True:
            part = await self._stream.__anext__()
            skipped = min(self._skip, len(part))
            self._skip -= skipped
            if skipped < len(part):
                return part[skipped:]

    async def aclose(self) -> None:
        await self._stream.aclose()
