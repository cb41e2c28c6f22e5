"""How tvix and snix lay out blobs in a bucket: keys, chunk lists, compressed chunks."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import zstandard
from blake3 import blake3

from tvixstore.blob.chunking import MAX_CHUNK_BYTES
from tvixstore.castore import DIGEST_BYTES, Digest
from tvixstore.castore.message import Message, bytes_field, number_field
from tvixstore.errors import CorruptData, InvalidData

if TYPE_CHECKING:
    from tvixstore.blob.chunk_list import Entry

LEVEL = 3
# What a decompressor may need of memory for its window; level 3 takes 2 MiB.
_MAX_WINDOW = 32 << 20


def blob_key(digest: bytes) -> str:
    """Where the chunk list of a blob is."""
    return _key("blobs", digest)


def chunk_key(digest: bytes) -> str:
    return _key("chunks", digest)


def _key(kind: str, digest: bytes) -> str:
    name = digest.hex()
    return f"{kind}/b3/{name[:4]}/{name}"


def encode_stat(entries: Sequence[Entry]) -> bytes:
    """A StatBlobResponse; a single chunk is not listed."""
    if len(entries) < 2:
        return b""
    return b"".join(
        bytes_field(2, bytes_field(1, digest) + number_field(2, size)) for digest, size in entries
    )


def decode_stat(blob: Digest, data: bytes) -> list[Entry]:
    """The chunks in a StatBlobResponse. Raises `CorruptData` where it cannot be of `blob`."""
    where = f"chunk list of {blob}"
    try:
        # Of a huge blob there may be more chunks than fit into a message over the wire.
        listed = Message(data, where, most=len(data)).repeated(2, "chunks")
        metas = [Message(meta, where) for meta in listed]
        entries = [
            (meta.exactly(1, "digest", DIGEST_BYTES), meta.number(2, "size")) for meta in metas
        ]
    except InvalidData as error:
        raise CorruptData(f"{error}") from error
    for digest, size in entries:
        if not 0 < size <= MAX_CHUNK_BYTES:
            raise CorruptData(f"{where}: chunk {digest.hex()} is {size} bytes long")
    return entries


class _Contexts(threading.local):
    """zstd's contexts are not to be shared between threads, and expensive to make for each call."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)


_contexts = _Contexts()


def encode_chunk_object(data: bytes | memoryview) -> tuple[bytes, bytes]:
    """The digest of a chunk, and its object. Up to some milliseconds a chunk."""
    return blake3(data).digest(), _contexts.compressor.compress(data)


def decode_chunk_object(digest: bytes, value: bytes, size: int | None) -> bytes:
    """The chunk's bytes, verified; `size` of them, if it is known. Raises `CorruptData`."""
    limit = MAX_CHUNK_BYTES if size is None else size
    try:
        # Others stream their chunks, and then a frame does not say how long it is.
        with _contexts.decompressor.stream_reader(io.BytesIO(value)) as reader:
            data: bytes = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise CorruptData(f"chunk {digest.hex()} cannot be decompressed: {error}") from error
    if len(data) > limit or (size is not None and len(data) != size):
        raise CorruptData(f"chunk {digest.hex()} is of another size than {limit} bytes")
    if blake3(data).digest() != digest:
        raise CorruptData(f"chunk {digest.hex()} does not hash to its digest")
    return data
