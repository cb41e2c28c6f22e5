"""zstd, a block at a time, so that no input can make one call put out more than a block (128 KiB).

libzstd's bindings put out all that their input expands to, and four bytes can ask for 128 KiB: a
slice of a few KiB may be hundreds of MiB. So the frames are cut at their block boundaries here
(RFC 8878, section 3.1.1), and libzstd gets one block a call. That also tells where frames end:
concatenated frames, skippable ones, what is cut off, and what is behind the last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zstandard

from tvixstore.errors import CorruptData

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WINDOW = 128 << 20
MAX_BLOCK = 128 << 10

_FRAME = 0xFD2FB528
_SKIPPABLE = 0x184D2A5
_MAGIC_BYTES = 4
_BLOCK_HEADER_BYTES = 3
_CHECKSUM_BYTES = 4
_RAW, _RUN, _COMPRESSED = 0, 1, 2
_DICTIONARY_BYTES = (0, 1, 2, 4)
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)


class ZstdStage:
    """Undoes zstd: feed bytes, take pieces of at most 128 KiB."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._frames = 0
        # Bytes of a skippable frame that are still to come.
        self._skip = 0
        # libzstd's side of the frame that we are in; `None` between frames.
        self._frame: Any = None
        self._has_checksum = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while (part := self._take()) is not None:
            if self._frame is None or not part:
                continue
            try:
                piece = self._frame.decompress(part)
            except zstandard.ZstdError as error:
                raise CorruptData(f"zstd: {error}") from error
            if self._frame.eof:
                self._frame = None
            if piece:
                yield piece

    def finish(self) -> None:
        if self._frame is not None or self._skip or self._buffer or not self._frames:
            raise CorruptData("zstd: ends in the middle of a frame")

    def _take(self) -> bytes | None:
        """The next header or block, whole; empty for what was skipped; `None` until it is there."""
        if self._skip:
            return self._take_skipped()
        if self._frame is None:
            return self._take_header()
        return self._take_block()

    def _take_skipped(self) -> bytes | None:
        skipped = min(self._skip, len(self._buffer))
        self._skip -= skipped
        del self._buffer[:skipped]
        return None if self._skip else b""

    def _take_header(self) -> bytes | None:
        if len(self._buffer) < _MAGIC_BYTES:
            return None
        magic = int.from_bytes(self._buffer[:_MAGIC_BYTES], "little")
        if magic >> 4 == _SKIPPABLE:
            if len(self._buffer) < 8:
                return None
            self._skip = int.from_bytes(self._buffer[4:8], "little")
            self._frames += 1
            return self._cut(8)[:0]
        if magic != _FRAME:
            raise CorruptData(f"zstd: {bytes(self._buffer[:4]).hex()} does not begin a frame")
        if len(self._buffer) <= _MAGIC_BYTES:
            return None
        descriptor = self._buffer[_MAGIC_BYTES]
        single_segment = bool(descriptor & 0x20)
        content_size_bytes = _CONTENT_SIZE_BYTES[descriptor >> 6] or int(single_segment)
        length = _MAGIC_BYTES + 1 + (not single_segment)
        length += _DICTIONARY_BYTES[descriptor & 3] + content_size_bytes
        if len(self._buffer) < length:
            return None
        self._has_checksum = bool(descriptor & 4)
        self._frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
        self._frames += 1
        return self._cut(length)

    def _take_block(self) -> bytes | None:
        if len(self._buffer) < _BLOCK_HEADER_BYTES:
            return None
        header = int.from_bytes(self._buffer[:_BLOCK_HEADER_BYTES], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind not in (_RAW, _RUN, _COMPRESSED) or size > MAX_BLOCK:
            raise CorruptData(f"zstd: a block of type {kind} and size {size}")
        length = _BLOCK_HEADER_BYTES + (1 if kind == _RUN else size)
        if last and self._has_checksum:
            length += _CHECKSUM_BYTES
        return self._cut(length) if len(self._buffer) >= length else None

    def _cut(self, length: int) -> bytes:
        part = bytes(self._buffer[:length])
        del self._buffer[:length]
        return part
