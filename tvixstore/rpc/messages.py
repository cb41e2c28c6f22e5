"""What goes over the wire, as values: each message of ours read strictly, and written.

A lenient reader makes something of whatever it gets: of a field that is cut off, of a singular one
that comes twice, of a digest of three bytes. Here all of that is `InvalidData` that names the
field, so neither server nor client ever sees a value that is not valid. Fields that are not known
are skipped, as protobuf has it; only within a Directory or a Node, whose bytes have a digest, they
are refused. The messages of snix have other names, and the same wire.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from tvixstore.blob import Chunk
from tvixstore.castore import (
    DIGEST_BYTES,
    Digest,
    Directory,
    FileNode,
    Node,
    decode_directory,
    decode_node,
    encode_directory,
    encode_node,
)
from tvixstore.castore.message import Message, bytes_field, number_field, text_field
from tvixstore.errors import InvalidData
from tvixstore.nar import NarIdentity
from tvixstore.nix import StorePath
from tvixstore.pathinfo import Description, PathInfo
from tvixstore.pathinfo.codec import (
    decode_narinfo,
    decode_path_info,
    encode_narinfo,
    encode_path_info,
)

Value = TypeVar("Value")

PATH_HASH_BYTES: Final = 20
SHA256_BYTES: Final = 32
# Of a message that is read where it came in, however long it is: one that is known, and then some.
_DATA_FIELDS: Final = 16


@dataclass(frozen=True, slots=True)
class Form(Generic[Value]):
    """One message type: values to bytes, and bytes to values or `InvalidData`."""

    name: str
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]
    # Whether decoding takes longer the more bytes there are, and so belongs in a thread.
    costly: bool = True


@dataclass(frozen=True, slots=True)
class StatBlob:
    digest: Digest
    send_chunks: bool = False


@dataclass(frozen=True, slots=True)
class GetDirectory:
    digest: Digest
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class Describe:
    """With `nar_sha256` only a path with that very NAR counts."""

    path_hash: bytes
    nar_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class OpenNar:
    """`length` bytes from `offset`, all if it is `None`, of that NAR of that path."""

    path_hash: bytes
    nar: NarIdentity
    offset: int = 0
    length: int | None = None


def _data(number: int, value: bytes) -> bytes:
    """Left out where it is empty."""
    return bytes_field(number, value) if value else b""


def _digest(message: Message, field: int, name: str) -> Digest:
    return Digest(message.exactly(field, name, DIGEST_BYTES))


def _digest_form(name: str, field: str = "digest") -> Form[Digest]:
    """A message whose one field is a digest."""
    return Form(
        name,
        lambda digest: bytes_field(1, digest.raw),
        lambda data: _digest(Message(data, name), 1, field),
    )


def _data_form(name: str) -> Form[bytes]:
    """A message whose one field is a part of a stream of bytes."""
    return Form(
        name,
        lambda data: _data(1, data),
        lambda data: Message(data, name, _DATA_FIELDS).optional(1, "data") or b"",
        costly=False,
    )


def _encode_digests(digests: Sequence[Digest]) -> bytes:
    return b"".join([bytes_field(1, digest.raw) for digest in digests])


def _decode_digests(data: bytes) -> Sequence[Digest]:
    return [Digest(raw) for raw in Message(data, "BlobDigests").repeated(1, "digests")]


def _encode_small(files: Sequence[FileNode]) -> bytes:
    sizes = struct.pack(f"<{len(files)}Q", *(file.size for file in files))
    return _encode_digests([file.digest for file in files]) + _data(2, sizes)


def _decode_small(data: bytes) -> Sequence[FileNode]:
    message = Message(data, "SmallBlobs")
    digests = message.repeated(1, "digests")
    packed = message.optional(2, "sizes") or b""
    if len(packed) != 8 * len(digests):
        raise InvalidData(f"SmallBlobs has {len(digests)} digests and {len(packed)} bytes of sizes")
    sizes = struct.unpack(f"<{len(digests)}Q", packed)
    return [FileNode(Digest(raw), size) for raw, size in zip(digests, sizes, strict=True)]


def _encode_blobs(blobs: Sequence[bytes]) -> bytes:
    return b"".join([bytes_field(1, blob) for blob in blobs])


def _decode_blobs(data: bytes) -> Sequence[bytes]:
    return Message(data, "BlobBatch").repeated(1, "blobs")


def _encode_stat(request: StatBlob) -> bytes:
    return bytes_field(1, request.digest.raw) + number_field(2, request.send_chunks)


def _decode_stat(data: bytes) -> StatBlob:
    message = Message(data, "StatBlobRequest")
    # `send_bao` has to be a number, and means nothing: nobody fills `bao`.
    message.number(3, "send_bao")
    return StatBlob(_digest(message, 1, "digest"), message.number(2, "send_chunks") != 0)


def _encode_chunks(chunks: Sequence[Chunk]) -> bytes:
    return b"".join(
        bytes_field(2, bytes_field(1, chunk.digest.raw) + number_field(2, chunk.size))
        for chunk in chunks
    )


def _decode_chunks(data: bytes) -> Sequence[Chunk]:
    chunks = []
    for position, each in enumerate(Message(data, "StatBlobResponse").repeated(2, "chunks")):
        chunk = Message(each, f"StatBlobResponse.chunks[{position}]")
        chunks.append(Chunk(_digest(chunk, 1, "digest"), chunk.number(2, "size")))
    return chunks


def _encode_get_directory(request: GetDirectory) -> bytes:
    return bytes_field(1, request.digest.raw) + number_field(2, request.recursive)


def _decode_get_directory(data: bytes) -> GetDirectory:
    message = Message(data, "GetDirectoryRequest")
    return GetDirectory(_digest(message, 1, "digest"), message.number(2, "recursive") != 0)


def _decode_path_hash(data: bytes) -> bytes:
    return Message(data, "GetPathInfoRequest").exactly(1, "by_output_hash", PATH_HASH_BYTES)


def _decode_root(data: bytes) -> Node:
    name, node = decode_node(data)
    if name:
        raise InvalidData(f"the node of a root has no name, but this one has {name!r}")
    return node


def _encode_identity(nar: NarIdentity) -> bytes:
    return number_field(1, nar.size) + bytes_field(2, nar.sha256)


def _decode_identity(data: bytes) -> NarIdentity:
    message = Message(data, "CalculateNARResponse")
    return NarIdentity(
        message.number(1, "nar_size"), message.exactly(2, "nar_sha256", SHA256_BYTES)
    )


def _decode_nothing(data: bytes) -> None:
    Message(data, "ListPathInfoRequest")


def _encode_describe(request: Describe) -> bytes:
    return bytes_field(1, request.path_hash) + _data(2, request.nar_sha256 or b"")


def _decode_describe(data: bytes) -> Describe:
    message = Message(data, "DescribeRequest")
    wanted = None
    if message.optional(2, "nar_sha256"):
        wanted = message.exactly(2, "nar_sha256", SHA256_BYTES)
    return Describe(message.exactly(1, "path_hash", PATH_HASH_BYTES), wanted)


def _encode_description(description: Description) -> bytes:
    deriver = description.deriver
    node = encode_node(description.node) if isinstance(description, PathInfo) else b""
    return b"".join(
        (
            text_field(1, description.store_path.base_name),
            bytes_field(2, encode_narinfo(description)),
            text_field(3, "" if deriver is None else deriver.base_name),
            _data(4, node),
        )
    )


def _decode_description(data: bytes) -> Description:
    message = Message(data, "Description")
    store_path = _store_path(message, 1, "store_path")
    description = decode_narinfo(message.required(2, "narinfo"), store_path)
    if message.optional(3, "deriver"):
        description = replace(description, deriver=_store_path(message, 3, "deriver"))
    if (node := message.optional(4, "node")) is None:
        return description
    return PathInfo.of(description, _decode_root(node))


def _store_path(message: Message, field: int, name: str) -> StorePath:
    try:
        return StorePath.from_base_name(message.text(field, name))
    except InvalidData as error:
        raise InvalidData(f"Description.{name}: {error}") from error


def _encode_open_nar(request: OpenNar) -> bytes:
    return b"".join(
        (
            bytes_field(1, request.path_hash),
            bytes_field(2, request.nar.sha256),
            number_field(3, request.nar.size),
            number_field(4, request.offset),
            # Not left out where it is 0: without it, it is all there is.
            b"" if request.length is None else number_field(5, request.length) or b"\x28\x00",
        )
    )


def _decode_open_nar(data: bytes) -> OpenNar:
    message = Message(data, "OpenNarRequest")
    return OpenNar(
        message.exactly(1, "path_hash", PATH_HASH_BYTES),
        NarIdentity(message.number(3, "nar_size"), message.exactly(2, "nar_sha256", SHA256_BYTES)),
        message.number(4, "offset"),
        message.optional_number(5, "length"),
    )


STAT_BLOB = Form("StatBlobRequest", _encode_stat, _decode_stat)
BLOB_CHUNKS = Form("StatBlobResponse", _encode_chunks, _decode_chunks)
READ_BLOB = _digest_form("ReadBlobRequest")
BLOB_DATA = _data_form("BlobChunk")
BLOB_DIGEST = _digest_form("PutBlobResponse")
GET_DIRECTORY = Form("GetDirectoryRequest", _encode_get_directory, _decode_get_directory)
DIRECTORY: Form[Directory] = Form("Directory", encode_directory, decode_directory)
ROOT_DIGEST = _digest_form("PutDirectoryResponse", "root_digest")
PATH_HASH: Form[bytes] = Form(
    "GetPathInfoRequest", lambda path_hash: bytes_field(1, path_hash), _decode_path_hash
)
PATH_INFO: Form[PathInfo] = Form("PathInfo", encode_path_info, decode_path_info)
ROOT: Form[Node] = Form("Node", encode_node, _decode_root)
NAR_IDENTITY = Form("CalculateNARResponse", _encode_identity, _decode_identity)
NOTHING: Form[None] = Form("ListPathInfoRequest", lambda _: b"", _decode_nothing)
DESCRIBE = Form("DescribeRequest", _encode_describe, _decode_describe)
DESCRIPTION: Form[Description] = Form("Description", _encode_description, _decode_description)
OPEN_NAR = Form("OpenNarRequest", _encode_open_nar, _decode_open_nar)
NAR_DATA = _data_form("NarChunk")
BLOB_DIGESTS: Form[Sequence[Digest]] = Form("BlobDigests", _encode_digests, _decode_digests)
SMALL_BLOBS: Form[Sequence[FileNode]] = Form("SmallBlobs", _encode_small, _decode_small)
BLOB_BATCH: Form[Sequence[bytes]] = Form("BlobBatch", _encode_blobs, _decode_blobs)
