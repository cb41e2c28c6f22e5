"""The rows of the table of uploads, as bytes: each behind a version, a checksum and its expiry."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3

from tvixstore.castore import Node, decode_node, encode_node
from tvixstore.errors import InvalidData

_VERSION: Final = b"\x01"
_CHECKSUM_BYTES: Final = 8
_HEADER_BYTES: Final = len(_VERSION) + _CHECKSUM_BYTES
# Unix milliseconds until which a row counts.
_UNTIL: Final = struct.Struct(">Q")
# Hash and size of the NAR, and of the file that it came in; how long the compression's name is.
_FILE: Final = struct.Struct(">32sQ32sQB")


@dataclass(frozen=True, slots=True, kw_only=True)
class NarFile:
    """A file that a NAR came in."""

    nar_sha256: bytes
    nar_size: int
    compression: str
    file_sha256: bytes
    file_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(NarFile):
    """One whose content is here, whatever path it is of."""

    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile(NarFile):
    """One that clients know the NAR of a path by."""

    path_hash: bytes


def encode_upload(upload: Upload, until: int) -> bytes:
    return _seal(until, _encode_file(upload) + encode_node(upload.node))


def decode_upload(row: bytes) -> Upload:
    """Raises `InvalidData` on anything that `encode_upload` did not write."""
    file, wire = _decode_file(_open(row))
    _, node = decode_node(wire)
    return Upload(**file, node=node)


def encode_known(known: KnownFile, until: int) -> bytes:
    return _seal(until, _encode_file(known) + known.path_hash)


def decode_known(row: bytes) -> KnownFile:
    """Raises `InvalidData` on anything that `encode_known` did not write."""
    file, path_hash = _decode_file(_open(row))
    return KnownFile(**file, path_hash=path_hash)


def encode_alias(file_sha256: bytes, until: int) -> bytes:
    return _seal(until, file_sha256)


def decode_alias(row: bytes) -> bytes:
    """Raises `InvalidData` on anything that `encode_alias` did not write."""
    return _open(row)


def until_of(row: bytes) -> int:
    """Until when the row counts; 0, long ago, if it says nothing that makes sense."""
    return _UNTIL.unpack_from(row, _HEADER_BYTES)[0] if len(row) >= _HEADER_BYTES + 8 else 0


def _seal(until: int, body: bytes) -> bytes:
    sealed = _UNTIL.pack(until) + body
    return _VERSION + blake3(sealed).digest(_CHECKSUM_BYTES) + sealed


def _open(row: bytes) -> bytes:
    sealed = row[_HEADER_BYTES:]
    if row[:_HEADER_BYTES] != _VERSION + blake3(sealed).digest(_CHECKSUM_BYTES):
        raise InvalidData("row is of another version, or does not have the checksum that it says")
    return sealed[_UNTIL.size :]


def _encode_file(file: NarFile) -> bytes:
    name = file.compression.encode()
    numbers = _FILE.pack(
        file.nar_sha256, file.nar_size, file.file_sha256, file.file_size, len(name)
    )
    return numbers + name


def _decode_file(body: bytes) -> tuple[dict[str, Any], bytes]:
    """The fields of a `NarFile`, and what comes behind them."""
    nar_sha256, nar_size, file_sha256, file_size, length = _FILE.unpack_from(body)
    end = _FILE.size + length
    fields = {
        "nar_sha256": nar_sha256,
        "nar_size": nar_size,
        "compression": body[_FILE.size : end].decode(),
        "file_sha256": file_sha256,
        "file_size": file_size,
    }
    return fields, body[end:]
