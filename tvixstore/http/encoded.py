"""NARs compressed as they go out: one context a response, its input bounded, its work in threads.

Whoever reads sets the pace: nothing is read from the NAR before the piece that came of the last one
was taken. The frame is ended only after the NAR has ended well, so that a body that breaks off is
told by its coding as well as by its connection.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto

from tvixstore.compression import COMPRESSORS, Compressor
from tvixstore.errors import CorruptData
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream

# Bytes that are encoded in one hop to a thread, and those that are not worth the hop.
_PIECE = 256 << 10
_SMALL = 32 << 10
# Seconds that bytes may wait for more when the NAR comes slowly.
_AGE = 0.02


class _Then(Enum):
    """What comes after a piece."""

    MORE = auto()
    # More, but maybe not soon.
    PAUSE = auto()
    END = auto()


class EncodedStream(ByteStream):
    """The `size` bytes of `stream`, compressed; raises `CorruptData` if they are more or fewer."""

    def __init__(
        self, stream: ByteStream, size: int, compression: str, pools: Pools | None
    ) -> None:
        """Without `pools`, all of it is done in the loop."""
        compressor = COMPRESSORS[compression]
        self._compressor: Compressor | None = compressor.make(size)
        self._in_loop = _SMALL if compressor.quick else -1
        self._stream = stream
        self._size = size
        self._pools = pools
        self._taken = 0
        self._due = 0.0

    async def __anext__(self) -> bytes:
        while self._compressor is not None:
            data, then = await self._gather()
            encoded = await self._encode(self._compressor, data, then)
            self._due = asyncio.get_running_loop().time() + _AGE
            if then is _Then.END:
                self._compressor = None
            if encoded:
                return encoded
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._compressor = None
        await self._stream.aclose()

    async def _gather(self) -> tuple[bytes, _Then]:
        """What is to be encoded next."""
        parts: list[bytes] = []
        held = 0
        now = asyncio.get_running_loop().time
        while held < _PIECE:
            part = await anext(self._stream, None)
            if part is None:
                if self._taken < self._size:
                    raise CorruptData(f"the NAR ended after {self._taken} of {self._size} bytes")
                return b"".join(parts), _Then.END
            parts.append(part)
            held += len(part)
            self._taken += len(part)
            if self._taken > self._size:
                raise CorruptData(f"the NAR goes on after its {self._size} bytes")
            if now() >= self._due and self._taken < self._size:
                # A client may be waiting for nothing else.
                return b"".join(parts), _Then.PAUSE
        return b"".join(parts), _Then.MORE

    async def _encode(self, compressor: Compressor, data: bytes, then: _Then) -> bytes:
        if self._pools is None or len(data) <= self._in_loop:
            return _encode(compressor, data, then)
        return await self._pools.cpu.run(_encode, compressor, data, then)


def _encode(compressor: Compressor, data: bytes, then: _Then) -> bytes:
    encoded = compressor.compress(data)
    match then:
        case _Then.PAUSE:
            return encoded + compressor.flush()
        case _Then.END:
            return encoded + compressor.finish()
    return encoded
