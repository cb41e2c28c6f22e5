"""Outlines: the digests of a blob's consecutive pieces, by which a part of it can be verified.

An outline comes from a chunk list, or is drawn while a blob is hashed. It is a claim until the
whole blob was hashed along with it; from then on it is as good as the blob's own digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from blake3 import blake3

from tvixstore.blob.chunking import MAX_CHUNK_BYTES
from tvixstore.blob.service import Chunk
from tvixstore.castore import Digest
from tvixstore.errors import CorruptData

Outline: TypeAlias = tuple[Chunk, ...]

# Into such pieces a blob is cut that comes without a list.
PIECE = 256 << 10
# Hashed in one go (0.2 ms) before other tasks get their turn.
_TURN = 1 << 20


def outline_of(chunks: Sequence[Chunk]) -> Outline | None:
    """`chunks` as an outline; `None` if there are none, or one that is not to be held in memory."""
    if chunks and all(0 < chunk.size <= MAX_CHUNK_BYTES for chunk in chunks):
        return tuple(chunks)
    return None


def size_of(outline: Outline) -> int:
    return sum(chunk.size for chunk in outline)


def piece_at(outline: Outline, offset: int) -> tuple[int, int]:
    """The index of the piece that has the byte at `offset`, and where that piece begins."""
    begin = 0
    for index, chunk in enumerate(outline):
        if offset < begin + chunk.size:
            return index, begin
        begin += chunk.size
    return len(outline), begin


async def verify_piece(blob: Digest, chunk: Chunk, data: bytes) -> None:
    """Raises `CorruptData` unless `data` is that piece of `blob`."""
    hasher = blake3()
    await update(hasher, data)
    if len(data) != chunk.size or hasher.digest() != chunk.digest.raw:
        raise CorruptData(f"blob {blob}: what came for {chunk.digest} is something else")


async def update(hasher: blake3, data: bytes) -> None:
    """Hashes `data`, and lets others run meanwhile if it is long."""
    if len(data) <= _TURN:
        hasher.update(data)
        return
    view = memoryview(data)
    for begin in range(0, len(data), _TURN):
        hasher.update(view[begin : begin + _TURN])
        await asyncio.sleep(0)


class Recutter:
    """Cuts a stream that comes in any pieces into pieces of `sizes`; sans-IO."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self._sizes = iter(sizes)
        self._size = next(self._sizes, None)
        self._parts: list[bytes] = []
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes taken that do not make a piece yet."""
        return self._held

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that are complete with `data`."""
        pieces: list[bytes] = []
        while self._size is not None and self._held + len(data) >= self._size:
            missing = self._size - self._held
            pieces.append(self._take(data[:missing]))
            data = data[missing:]
            self._size = next(self._sizes, None)
        if data:
            self._parts.append(data)
            self._held += len(data)
        return pieces

    def rest(self) -> bytes:
        """What makes no piece."""
        return self._take(b"")

    def _take(self, last: bytes) -> bytes:
        parts, self._parts, self._held = [*self._parts, last], [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)
