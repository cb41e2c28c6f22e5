"""Where blobs are cut: FastCDC, or the boundaries that another store used.

FastCDC decides each cut from the bytes after the one before, so a stream is cut piece by piece: a
chunk that ends before the end of what is there is final, the last one waits for more. The cuts are
those of tvix and snix (v2020, normalization 1, at least half and at most twice the average).
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from tvixstore.errors import ConfigError

try:
    from pyfastcdc.cy import FastCDC
except ImportError:
    FastCDC = None

if TYPE_CHECKING:
    from collections.abc import Sequence

# The averages for which pyfastcdc takes half and double as well.
MIN_AVERAGE = 512
MAX_AVERAGE = 2 << 20
# A chunk is held in memory whole, so boundaries further apart than this are not taken over.
MAX_CHUNK_BYTES = 16 << 20


class Chunking:
    """How large chunks become. Raises `ConfigError` where that cannot be had."""

    def __init__(self, average: int) -> None:
        if FastCDC is None:
            # Its fallback in Python is a thousand times slower, and nobody would know why.
            raise ConfigError(
                "pyfastcdc is installed without its compiled part: install a wheel of it, "
                "or a C compiler before `pip install --force-reinstall pyfastcdc`"
            )
        if not MIN_AVERAGE <= average <= MAX_AVERAGE:
            raise ConfigError(
                f"chunk_size is {average} bytes, expected {MIN_AVERAGE} to {MAX_AVERAGE}"
            )
        self.average = average
        self.minimum = average // 2
        self.maximum = average * 2
        self._fastcdc = FastCDC(
            average, min_size=self.minimum, max_size=self.maximum, normalized_chunking=1
        )

    def cutter(self, boundaries: Sequence[int] | None = None) -> Cutter:
        """A cutter for one blob; `boundaries` that cannot be kept are left aside."""
        kept = boundaries or ()
        if not all(0 < size <= MAX_CHUNK_BYTES for size in kept):
            kept = ()
        return Cutter(self, kept)

    def cut(self, data: memoryview) -> list[int]:
        """The sizes of the chunks of `data`. Lets other threads run."""
        return [chunk.length for chunk in self._fastcdc.cut_buf(data)]


class Cutter:
    """Takes a blob's bytes in order and gives its chunks."""

    def __init__(self, chunking: Chunking, boundaries: Sequence[int]) -> None:
        self._chunking = chunking
        self._sizes = iter(boundaries)
        self._size = next(self._sizes, None)
        self._rest = b""

    def feed(self, parts: Sequence[bytes | memoryview], *, last: bool) -> list[memoryview]:
        """The chunks that are final with `parts`; with `last`, all that are left."""
        buffer = memoryview(b"".join(chain([self._rest], parts)))
        chunks: list[memoryview] = []
        begin = 0
        while self._size is not None and len(buffer) - begin >= self._size:
            chunks.append(buffer[begin : begin + self._size])
            begin += self._size
            self._size = next(self._sizes, None)
        if self._size is None:
            for size in self._chunking.cut(buffer[begin:]):
                if begin + size == len(buffer) and not last:
                    break
                chunks.append(buffer[begin : begin + size])
                begin += size
        elif last and begin < len(buffer):
            chunks.append(buffer[begin:])
            begin = len(buffer)
        self._rest = bytes(buffer[begin:])
        return chunks
