"""Compression made again, as cheaply as each format allows: feed pieces, take what is ready.

For NARs that a client wants in the compression that they once came in. What is made decompresses to
the same bytes; the compressed bytes are others, since no two versions of a library agree on them.
Everything here takes CPU time: call it in a thread.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import brotli
import lz4.frame
import zstandard

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Compressor(Protocol):
    """One stream being made. Nothing is fed after `flush`."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _None:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Brotli:
    def __init__(self) -> None:
        self._brotli = brotli.Compressor(quality=1)

    def compress(self, data: bytes, /) -> bytes:
        made: bytes = self._brotli.process(data)
        return made

    def flush(self) -> bytes:
        made: bytes = self._brotli.finish()
        return made


class _Lz4:
    def __init__(self) -> None:
        self._lz4 = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes, /) -> bytes:
        made: bytes = self._begin() + self._lz4.compress(data)
        return made

    def flush(self) -> bytes:
        made: bytes = self._begin() + self._lz4.flush()
        return made

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        header: bytes = self._lz4.begin()
        return header


def _zstd() -> Compressor:
    made: Compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return made


# By what a narinfo calls them.
COMPRESSORS: Final[Mapping[str, Callable[[], Compressor]]] = {
    "none": _None,
    "xz": lambda: lzma.LZMACompressor(lzma.FORMAT_XZ, preset=0),
    # Nix tells compressions apart by the bytes as well, and aborts on lzma, its own included.
    "lzma": lambda: lzma.LZMACompressor(lzma.FORMAT_XZ, preset=0),
    "zstd": _zstd,
    "bzip2": lambda: bz2.BZ2Compressor(1),
    "gzip": lambda: zlib.compressobj(1, wbits=_GZIP_WINDOW),
    "br": _Brotli,
    "lz4": _Lz4,
}
