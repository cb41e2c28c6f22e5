"""NARs encoded as they go out: one context a response, its input bounded, its work in threads.

Whoever reads sets the pace: nothing is read from the NAR before the piece that came of the last one
was taken. The frame is ended only after the NAR has ended well, so that a body that breaks off is
told by its coding as well as by its connection.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final, Protocol

import zstandard

from tvixstore.errors import CorruptData
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream

# Bytes that are encoded in one hop to a thread, and those that are not worth the hop.
_PIECE = 256 << 10
_SMALL = 32 << 10
# Seconds that bytes may wait for more when the NAR comes slowly.
_AGE = 0.02
# Quickest, because somebody waits: the next levels of zstd save a tenth more for twice the time.
_ZSTD_LEVEL = 1
_GZIP_LEVEL = 1
_GZIP_FRAME = 16 + zlib.MAX_WBITS


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


def _zstd(size: int) -> _Encoder:
    encoder: _Encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj(size=size)
    return encoder


def _gzip(size: int) -> _Encoder:
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FRAME)


# What makes a context for so many bytes, and what ends a block of its output, or all of it.
_ENCODERS: Final[dict[str, tuple[Callable[[int], _Encoder], int, int]]] = {
    "zstd": (_zstd, zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH),
    "gzip": (_gzip, zlib.Z_SYNC_FLUSH, zlib.Z_FINISH),
}


class EncodedStream(ByteStream):
    """The `size` bytes of `stream` in a coding; raises `CorruptData` if they are more or fewer."""

    def __init__(self, stream: ByteStream, size: int, coding: str, pools: Pools | None) -> None:
        """Without `pools`, all of it is done in the loop."""
        make, self._block, self._finish = _ENCODERS[coding]
        self._encoder: _Encoder | None = make(size)
        self._stream = stream
        self._size = size
        self._pools = pools
        self._taken = 0
        self._due = 0.0

    async def __anext__(self) -> bytes:
        while self._encoder is not None:
            data, mode = await self._gather()
            encoded = await self._encode(self._encoder, data, mode)
            self._due = asyncio.get_running_loop().time() + _AGE
            if mode == self._finish:
                self._encoder = None
            if encoded:
                return encoded
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._encoder = None
        await self._stream.aclose()

    async def _gather(self) -> tuple[bytes, int | None]:
        """What is to be encoded next, and how that is to be flushed, if at all."""
        parts: list[bytes] = []
        held = 0
        now = asyncio.get_running_loop().time
        while held < _PIECE:
            part = await anext(self._stream, None)
            if part is None:
                if self._taken < self._size:
                    raise CorruptData(f"the NAR ended after {self._taken} of {self._size} bytes")
                return b"".join(parts), self._finish
            parts.append(part)
            held += len(part)
            self._taken += len(part)
            if self._taken > self._size:
                raise CorruptData(f"the NAR goes on after its {self._size} bytes")
            if now() >= self._due and self._taken < self._size:
                # A client may be waiting for nothing else.
                return b"".join(parts), self._block
        return b"".join(parts), None

    async def _encode(self, encoder: _Encoder, data: bytes, mode: int | None) -> bytes:
        if self._pools is None or len(data) <= _SMALL:
            return _encode(encoder, data, mode)
        return await self._pools.cpu.run(_encode, encoder, data, mode)


def _encode(encoder: _Encoder, data: bytes, mode: int | None) -> bytes:
    encoded = encoder.compress(data)
    return encoded if mode is None else encoded + encoder.flush(mode)
