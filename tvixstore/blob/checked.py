"""Streams that verify what goes through them, whoever it comes from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import repeat

from blake3 import blake3

from tvixstore.blob.outline import (
    PIECE,
    Outline,
    Recutter,
    piece_at,
    size_of,
    update,
    verify_piece,
)
from tvixstore.blob.service import Chunk
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData
from tvixstore.streams import ByteStream


class CheckedStream(ByteStream):
    """A whole blob from `source`, hashed; the last piece goes out once all of it was right.

    By a `claimed` outline each piece is verified before it goes out. `on_right` is told the outline
    that was verified along with the blob, claimed or drawn, before the last piece goes out.
    """

    def __init__(
        self,
        digest: Digest,
        source: ByteStream,
        claimed: Outline | None = None,
        on_right: Callable[[Outline], None] = lambda _: None,
    ) -> None:
        self._digest = digest
        self._source = source
        self._claimed = claimed
        self._on_right = on_right
        self._cut = Recutter(repeat(PIECE) if claimed is None else (c.size for c in claimed))
        self._hasher = blake3()
        self._drawn: list[Chunk] = []
        # What may go out, and after it the piece that may turn out to be the last.
        self._ready: deque[bytes] = deque()
        self._held: bytes | None = None
        self._ended = False
        self._error: CorruptData | None = None

    async def ready(self) -> None:
        """Waits until a piece may go out, or there is none; raises what is wrong."""
        while not self._ready and not self._ended:
            if self._error is not None:
                raise self._error
            await self._pull()

    async def __anext__(self) -> bytes:
        await self.ready()
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    async def aclose(self) -> None:
        self._ready.clear()
        self._held = None
        self._ended = True
        await self._source.aclose()

    async def _pull(self) -> None:
        part = await anext(self._source, None)
        try:
            if part is None:
                await self._finish()
                return
            for piece in self._cut.feed(part):
                self._release()
                await self._check(piece)
            if self._cut.held:
                self._release()
                if self._claimed is not None and len(self._drawn) == len(self._claimed):
                    raise CorruptData(f"blob {self._digest} is longer than its chunk list")
        except CorruptData as error:
            self._error = error
            raise

    async def _check(self, piece: bytes) -> None:
        if self._claimed is None:
            chunk = Chunk(Digest.of(piece), len(piece))
        else:
            chunk = self._claimed[len(self._drawn)]
            await verify_piece(self._digest, chunk, piece)
        await update(self._hasher, piece)
        self._drawn.append(chunk)
        self._held = piece

    async def _finish(self) -> None:
        if rest := self._cut.rest():
            if self._claimed is not None:
                raise CorruptData(f"blob {self._digest} ends within a chunk of its list")
            await self._check(rest)
        if self._hasher.digest() != self._digest.raw:
            raise CorruptData(
                f"what came for blob {self._digest} hashes to b3:{self._hasher.hexdigest()}"
            )
        self._on_right(tuple(self._drawn))
        self._release()
        self._ended = True

    def _release(self) -> None:
        if self._held is not None:
            self._ready.append(self._held)
            self._held = None


class PartStream(ByteStream):
    """`length` bytes of a blob from `offset`, by an outline that was verified with the whole.

    `source` has to give what `covering` says: the pieces that the part touches.
    """

    def __init__(
        self, digest: Digest, source: ByteStream, outline: Outline, offset: int, length: int
    ) -> None:
        first, begin = piece_at(outline, offset)
        self._digest = digest
        self._source = source
        self._chunks = outline[first:]
        self._next = 0
        self._cut = Recutter(chunk.size for chunk in self._chunks)
        self._skip = offset - begin
        self._left = length
        self._ready: deque[bytes] = deque()

    async def __anext__(self) -> bytes:
        while self._left > 0 or self._ready:
            if self._ready:
                return self._ready.popleft()
            part = await anext(self._source, None)
            if part is None:
                raise CorruptData(f"blob {self._digest} ends before its outline does")
            for piece in self._cut.feed(part):
                await self._take(piece)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._left = 0
        self._ready.clear()
        await self._source.aclose()

    async def _take(self, piece: bytes) -> None:
        await verify_piece(self._digest, self._chunks[self._next], piece)
        self._next += 1
        wanted = piece[self._skip : self._skip + self._left]
        self._skip = 0
        self._left -= len(wanted)
        if wanted:
            self._ready.append(wanted)


def clip(outline: Outline, offset: int, length: int | None) -> int:
    """How many bytes the part has."""
    left = max(0, size_of(outline) - offset)
    return left if length is None else min(left, length)


def covering(outline: Outline, offset: int, length: int) -> tuple[int, int]:
    """Offset and length of the whole pieces that a part touches; the part is not empty."""
    _, begin = piece_at(outline, offset)
    last, end = piece_at(outline, offset + length - 1)
    return begin, end + outline[last].size - begin
