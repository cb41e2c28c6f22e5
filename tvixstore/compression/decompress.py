"""Decompression, sans-IO and bounded: feed bytes, take pieces of at most 1 MiB.

However much a byte expands to, only one piece of it is in memory at a time: every library is asked
for a bounded amount of output, and asked again while it has more. What is left after the end of
the data, and data that ends early, is `CorruptData`. Everything here takes CPU time: call it in a
thread.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import brotli
import lz4.frame

from tvixstore.compression.zstd_frames import ZstdStage
from tvixstore.errors import CorruptData, Unsupported

MAX_PIECE = 1 << 20
# Codings of one transfer, on top of each other. What a stage in the middle puts out is counted
# nowhere, and each one more multiplies by a thousand how long a few KiB can keep a thread busy.
MOST_ENCODINGS = 2
# What `xz -9` needs is 65 MiB.
_LZMA_MEMORY = 128 << 20
# brotli puts out up to twice of what it is asked for.
_BROTLI_PIECE = MAX_PIECE // 4
# zlib's name for "gzip, with the largest window".
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Stage(Protocol):
    """One compression, undone. Exhaust what `feed` returned before feeding more."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None:
        """Raises `CorruptData` unless what was fed is whole."""


class Decoder:
    """Undoes the content codings of a transfer and then the compression of a NAR."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` expands to, made as it is taken. Exhaust it before feeding more."""
        return self._run(0, data)

    def finish(self) -> None:
        """Raises `CorruptData` if the data ended early."""
        for stage in self._stages:
            stage.finish()

    def _run(self, position: int, data: bytes) -> Iterator[bytes]:
        if position == len(self._stages):
            for start in range(0, len(data), MAX_PIECE):
                yield data[start : start + MAX_PIECE]
            return
        for piece in self._stages[position].feed(data):
            yield from self._run(position + 1, piece)


class _Engine(Protocol):
    """One stream of a format, as the standard library's decompressors have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's object keeps input that it had no room for outside of itself; this one inside."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class _Streams:
    """A format whose files are streams one after the other, as pixz, pbzip2 and pigz write them."""

    # What the library raises for data that is not of that format.
    errors: tuple[type[Exception], ...]

    def __init__(
        self,
        name: str,
        engine: Callable[[], _Engine],
        *errors: type[Exception],
        concatenates: bool = True,
    ) -> None:
        self.name = name
        self.errors = errors
        self._new_engine = engine
        self._concatenates = concatenates
        self._engine: _Engine | None = None
        self._streams = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._engine is None:
                data = self._between(data)
                if not data:
                    return
                if self._streams and not self._concatenates:
                    raise CorruptData(f"{self.name}: more bytes behind its end")
                self._engine = self._new_engine()
                self._streams += 1
            try:
                piece = self._engine.decompress(data, MAX_PIECE)
            except self.errors as error:
                what = "more bytes behind its end: " if self._streams > 1 else ""
                raise CorruptData(f"{self.name}: {what}{error}") from error
            data = b""
            if piece:
                yield piece
            if self._engine.eof:
                data = self._engine.unused_data or b""
                self._engine = None
            elif len(piece) < MAX_PIECE:
                # Short of what it was asked for, so it has nothing more without more input.
                return

    def finish(self) -> None:
        if self._engine is not None or not self._streams:
            raise CorruptData(f"{self.name}: ends in the middle of a stream")

    def _between(self, data: bytes) -> bytes:
        """`data` without what may stand between two streams."""
        return data


class _Xz(_Streams):
    """xz allows zeros behind a stream, in multiples of four."""

    def __init__(self) -> None:
        super().__init__(
            "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY), lzma.LZMAError
        )
        self._padding = 0

    def finish(self) -> None:
        super().finish()
        self._check_padding()

    def _between(self, data: bytes) -> bytes:
        if not self._streams:
            return data
        rest = data.lstrip(b"\0")
        self._padding += len(data) - len(rest)
        if rest:
            self._check_padding()
            self._padding = 0
        return rest

    def _check_padding(self) -> None:
        if self._padding % 4:
            raise CorruptData(f"xz: {self._padding} bytes of padding, not a multiple of four")


class _Brotli:
    """One stream; there is no telling where another one would begin."""

    def __init__(self) -> None:
        self._brotli = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        if data and self._brotli.is_finished():
            raise CorruptData("br: more bytes behind its end")
        while True:
            try:
                piece = self._brotli.process(data, output_buffer_limit=_BROTLI_PIECE)
            except brotli.error as error:
                raise CorruptData(f"br: {error}") from error
            data = b""
            for start in range(0, len(piece), MAX_PIECE):
                yield piece[start : start + MAX_PIECE]
            if not piece or self._brotli.is_finished():
                return

    def finish(self) -> None:
        if not self._brotli.is_finished():
            raise CorruptData("br: ends in the middle of a stream")


def _lzma() -> Stage:
    def engine() -> _Engine:
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_MEMORY)

    return _Streams("lzma", engine, lzma.LZMAError, concatenates=False)


def _bzip2() -> Stage:
    return _Streams("bzip2", bz2.BZ2Decompressor, OSError)


def _gzip() -> Stage:
    return _Streams("gzip", _Gzip, zlib.error)


def _lz4() -> Stage:
    return _Streams("lz4", lz4.frame.LZ4FrameDecompressor, RuntimeError)


# By what a narinfo's Compression, or a Content-Encoding, calls them.
_STAGES: dict[str, Callable[[], Stage]] = {
    "xz": _Xz,
    "lzma": _lzma,
    "zstd": ZstdStage,
    "bzip2": _bzip2,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "br": _Brotli,
    "lz4": _lz4,
}


def decoder(compression: str, encodings: Sequence[str] = ()) -> Decoder:
    """Undoes `encodings` (the outermost first) and then `compression`, by a narinfo's names.

    Raises `Unsupported`, with its name, for one that is not known, and for more than
    `MOST_ENCODINGS`. A missing Compression is the caller's to read as bzip2.
    """
    if len(encodings) > MOST_ENCODINGS:
        raise Unsupported(
            f"{len(encodings)} codings on top of each other are not undone here, "
            f"only {MOST_ENCODINGS}"
        )
    names = [*encodings, *([] if compression == "none" else [compression])]
    for name in names:
        if name not in _STAGES:
            known = ", ".join(["none", *_STAGES])
            raise Unsupported(f"compression {name!r} is not known here, only {known}")
    return Decoder([_STAGES[name]() for name in names])
