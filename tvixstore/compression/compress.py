"""Compression made again, as cheaply as each format allows: feed pieces, take what is ready.

For NARs that a client wants in a coding that it takes, or in the compression that they once came
in. What is made decompresses to the same bytes; the compressed bytes are others, since no two
versions of a library agree on them. Everything here takes CPU time.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import brotli
import lz4.frame
import zstandard

# Quickest, because somebody waits: the next levels of zstd save a tenth more for twice the time.
_LEVEL: Final = 1
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Compressor(Protocol):
    """One stream being made. Nothing is fed after `finish`."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes:
        """What it takes to undo all that was fed so far, where the format has such a thing."""

    def finish(self) -> bytes: ...


class _Whole:
    """A library that has nothing to say before a block of its own is full."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def compress(self, data: bytes, /) -> bytes:
        made: bytes = self._inner.compress(data)
        return made

    def flush(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        made: bytes = self._inner.flush()
        return made


class _Flushing(_Whole):
    """One whose `flush` takes a mode: to end a block, or all of it."""

    def __init__(self, inner: Any, block: int, end: int) -> None:
        super().__init__(inner)
        self._block, self._end = block, end

    def flush(self) -> bytes:
        made: bytes = self._inner.flush(self._block)
        return made

    def finish(self) -> bytes:
        made: bytes = self._inner.flush(self._end)
        return made


class _Brotli:
    def __init__(self) -> None:
        self._brotli = brotli.Compressor(quality=_LEVEL)

    def compress(self, data: bytes, /) -> bytes:
        made: bytes = self._brotli.process(data)
        return made

    def flush(self) -> bytes:
        made: bytes = self._brotli.flush()
        return made

    def finish(self) -> bytes:
        made: bytes = self._brotli.finish()
        return made


class _Lz4(_Whole):
    """Its header is asked for by itself."""

    def __init__(self) -> None:
        super().__init__(lz4.frame.LZ4FrameCompressor())
        self._begun = False

    def compress(self, data: bytes, /) -> bytes:
        return self._begin() + super().compress(data)

    def finish(self) -> bytes:
        return self._begin() + super().finish()

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        header: bytes = self._inner.begin()
        return header


def _zstd(size: int) -> Compressor:
    return _Flushing(
        zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=size),
        zstandard.COMPRESSOBJ_FLUSH_BLOCK,
        zstandard.COMPRESSOBJ_FLUSH_FINISH,
    )


def _gzip(size: int) -> Compressor:
    inner = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    return _Flushing(inner, zlib.Z_SYNC_FLUSH, zlib.Z_FINISH)


def _xz(size: int) -> Compressor:
    return _Whole(lzma.LZMACompressor(lzma.FORMAT_XZ, preset=0))


@dataclass(frozen=True, slots=True)
class Format:
    """How to `make` what compresses so many bytes; `quick` if a few KiB need no thread."""

    make: Callable[[int], Compressor]
    quick: bool = False


# By what a narinfo, or a Content-Encoding, calls them.
COMPRESSORS: Final[Mapping[str, Format]] = {
    "xz": Format(_xz),
    # Nix tells compressions apart by the bytes as well, and aborts on lzma, its own included.
    "lzma": Format(_xz),
    "zstd": Format(_zstd, quick=True),
    "bzip2": Format(lambda size: _Whole(bz2.BZ2Compressor(1))),
    "gzip": Format(_gzip, quick=True),
    "br": Format(lambda size: _Brotli()),
    "lz4": Format(lambda size: _Lz4()),
}
