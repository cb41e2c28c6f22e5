"""The list of a blob's chunks, as its table keeps it.

A version byte, 16 bytes of BLAKE3 over the blob's digest and the entries, and an entry a chunk: its
digest and its size (32 bits, little endian). The check binds the list to its blob: a list that was
damaged on disk is noticed before anything is read by it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blake3 import blake3

from tvixstore.errors import CorruptData

if TYPE_CHECKING:
    from collections.abc import Iterable

# A chunk's digest and its size.
Entry = tuple[bytes, int]

_VERSION = b"\x01"
_CHECK_BYTES = 16
_ENTRY = struct.Struct("<32sI")
_ENTRIES_AT = len(_VERSION) + _CHECK_BYTES


def encode_chunk_list(blob: bytes, entries: Iterable[Entry]) -> bytes:
    body = b"".join([_ENTRY.pack(*entry) for entry in entries])
    return _VERSION + _check(blob, body) + body


def decode_chunk_list(blob: bytes, value: bytes) -> list[Entry]:
    """Raises `CorruptData` unless `value` is a list of that blob."""
    body = value[_ENTRIES_AT:]
    if (
        value[:1] != _VERSION
        or len(body) % _ENTRY.size
        or value[1:_ENTRIES_AT] != _check(blob, body)
    ):
        raise CorruptData(f"the chunk list of blob {blob.hex()} is damaged")
    return list(_ENTRY.iter_unpack(body))


def _check(blob: bytes, body: bytes) -> bytes:
    hasher = blake3(blob)
    hasher.update(body)
    return hasher.digest(length=_CHECK_BYTES)
