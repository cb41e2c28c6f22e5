"""How one chunk is kept: compressed where that pays, small ones inside the index, others as files.

The index has a record for each chunk: a byte of flags, the chunk's size and the size of its stored
form (32 bits each, little endian), and then the stored form itself unless that is a file.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import zstandard
from blake3 import blake3

from tvixstore.castore import EMPTY_DIGEST, FileNode
from tvixstore.errors import CorruptData
from tvixstore.kv import ChunkRow

# Libraries take 2.7 ms a megabyte, and 8 % more room than at level 3, which takes 4.5 and is zstd's
# default; docs/performance.md has more.
LEVEL = 1
# Compression has to save a tenth, otherwise the chunk is kept as it is: reading is then cheaper.
WORTH = 0.9
# Chunks above this are judged by a sample from their middle first.
SAMPLE_ABOVE = 64 << 10
SAMPLE_BYTES = 16 << 10

_HEADER = struct.Struct("<BII")
_COMPRESSED = 1
_IN_FILE = 2


@dataclass(frozen=True, slots=True)
class Record:
    """A chunk's entry in the index: `size` bytes, kept as `stored` bytes."""

    # What comes before the stored form.
    HEAD_BYTES: ClassVar[int] = _HEADER.size

    size: int
    stored: int
    compressed: bool
    # The stored form; `None` if it is a file.
    payload: bytes | None

    @classmethod
    def decode(cls, digest: bytes, value: bytes) -> Record:
        """Raises `CorruptData` for what is no record."""
        if len(value) >= _HEADER.size:
            flags, size, stored = _HEADER.unpack_from(value)
            in_file = bool(flags & _IN_FILE)
            payload = None if in_file else value[_HEADER.size :]
            if flags < 4 and len(value) - _HEADER.size == (0 if in_file else stored):
                return cls(size, stored, bool(flags & _COMPRESSED), payload)
        raise CorruptData(f"the index entry of chunk {digest.hex()} cannot be read")


def size_of(head: bytes) -> int | None:
    """The chunk's size by the head of its record; `None` if it has none."""
    return int(_HEADER.unpack_from(head)[1]) if len(head) >= _HEADER.size else None


def is_in_file(row: bytes) -> bool:
    """Whether the record in `row` says that the stored form is a file."""
    return len(row) >= _HEADER.size and bool(row[0] & _IN_FILE)


class StoredForm(NamedTuple):
    """A chunk ready to be written: a tuple, since of small ones there are many a second."""

    digest: bytes
    size: int
    compressed: bool
    payload: bytes | memoryview
    stored: int

    def inline_row(self) -> ChunkRow:
        """Its record with the stored form, copied: what zstd returns keeps the memory of the
        largest result that it could have had."""
        head = _HEADER.pack(_COMPRESSED * self.compressed, self.size, self.stored)
        return ChunkRow(self.digest, b"".join((head, self.payload)), self.stored, in_file=False)

    def file_row(self) -> ChunkRow:
        """Its record for when the stored form is a file."""
        flags = _COMPRESSED * self.compressed | _IN_FILE
        row = _HEADER.pack(flags, self.size, self.stored)
        return ChunkRow(self.digest, row, self.stored, in_file=True)


class _Contexts(threading.local):
    """zstd's contexts are not to be shared between threads, and expensive to make for each call."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_contexts = _Contexts()


def encode_chunk(
    data: bytes | memoryview, *, compress: bool, digest: bytes | None = None
) -> StoredForm:
    """Hashes and, where it pays, compresses. Up to a millisecond a chunk.

    A `digest` is believed: it has to be what this process computed from `data`.
    """
    if digest is None:
        digest = blake3(data).digest()
    if compress and _promises_to_shrink(data):
        packed = _contexts.compressor.compress(data)
        if len(packed) <= len(data) * WORTH:
            return StoredForm(digest, len(data), True, packed, len(packed))
    return StoredForm(digest, len(data), False, data, len(data))


def encode_chunks(
    chunks: Sequence[bytes], *, compress: bool, digests: Sequence[bytes] | None = None
) -> list[StoredForm]:
    """The same of many. Short ones are compressed in one call, which lets other threads run."""
    if digests is None:
        digests = [blake3(data).digest() for data in chunks]
    hashed = list(zip(digests, chunks, strict=True))
    short: list[bytes | bytearray | memoryview] = []
    if compress:
        short += [data for data in chunks if 0 < len(data) <= SAMPLE_ABOVE]
    if not short:
        return [encode_chunk(data, compress=compress, digest=digest) for digest, data in hashed]
    packed = iter(_contexts.compressor.multi_compress_to_buffer(short))
    return [
        _form_of(digest, data, next(packed))
        if 0 < len(data) <= SAMPLE_ABOVE
        else encode_chunk(data, compress=True, digest=digest)
        for digest, data in hashed
    ]


def _form_of(digest: bytes, data: bytes, packed: zstandard.BufferSegment) -> StoredForm:
    size, stored = len(data), len(packed)
    if stored <= size * WORTH:
        # A copy: the segment keeps the memory of all that were compressed with it.
        return StoredForm(digest, size, True, packed.tobytes(), stored)
    return StoredForm(digest, size, False, data, size)


def _promises_to_shrink(data: bytes | memoryview) -> bool:
    if len(data) <= SAMPLE_ABOVE:
        return True
    begin = len(data) // 2
    sample = data[begin : begin + SAMPLE_BYTES]
    return len(_contexts.compressor.compress(sample)) <= len(sample) * WORTH


def decode_chunk(digest: bytes, record: Record, payload: bytes) -> bytes:
    """The chunk's bytes, verified; `CorruptData` if `payload` is not its stored form."""
    data = payload
    if len(payload) != record.stored:
        raise CorruptData(
            f"chunk {digest.hex()} is stored as {len(payload)} bytes, not as {record.stored}"
        )
    if record.compressed:
        try:
            # Checked first, because that many bytes are allocated at once.
            if zstandard.frame_content_size(payload) != record.size:
                raise CorruptData(f"chunk {digest.hex()} has a frame of another size")
            data = _contexts.decompressor.decompress(payload)
        except zstandard.ZstdError as error:
            raise CorruptData(f"chunk {digest.hex()} cannot be decompressed: {error}") from error
    if len(data) != record.size or blake3(data).digest() != digest:
        raise CorruptData(f"chunk {digest.hex()} does not hash to its digest")
    return data


def decode_rows(files: Sequence[FileNode], rows: Sequence[bytes | None]) -> list[bytes | None]:
    """The contents of files by the rows of their chunks, as far as they are whole and right.

    Like `decode_chunk`, without a `Record` for each, nor what is wrong with those left out.
    """
    contents: list[bytes | None] = []
    decompress = _contexts.decompressor.decompress
    frame_size = zstandard.frame_content_size
    for file, row in zip(files, rows, strict=True):
        contents.append(b"" if file.digest == EMPTY_DIGEST and not file.size else None)
        if row is None or len(row) < _HEADER.size:
            continue
        flags, size, stored = _HEADER.unpack_from(row)
        if size != file.size or flags & ~_COMPRESSED or len(row) - _HEADER.size != stored:
            continue
        data = row[_HEADER.size :]
        if flags:
            try:
                if frame_size(data) != size:
                    continue
                data = decompress(data)
            except zstandard.ZstdError:
                continue
        if len(data) == size and blake3(data).digest() == file.digest.raw:
            contents[-1] = data
    return contents
