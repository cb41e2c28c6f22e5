"""Messages: what comes over gRPC, from clients and from peers, and what keeps them on disk."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from blake3 import blake3

from tests.fuzz.target import Target, canonical, golden, stays
from tvixstore.blob import Chunk
from tvixstore.castore import (
    Digest,
    Directory,
    FileNode,
    SymlinkNode,
    decode_directory,
    decode_node,
    encode_directory,
    encode_node,
)
from tvixstore.castore.message import bytes_field
from tvixstore.nar import NarIdentity
from tvixstore.pathinfo import Description
from tvixstore.pathinfo.codec import (
    decode_path_info,
    decode_record,
    encode_path_info,
    encode_record,
)
from tvixstore.rpc import messages
from tvixstore.rpc.messages import Describe, Form, GetDirectory, OpenNar, StatBlob
from tvixstore.rpc.server.reflection import METHODS as REFLECTION

_CASTORE, _MORE = golden("castore.json"), golden("castore-more.json")
_HASH, _SHA256, _DIGEST = bytes(range(20)), bytes(range(32)), Digest(bytes(range(32)))
_IDENTITY = NarIdentity(1 << 40, _SHA256)


def _wires(rows: Any) -> list[bytes]:
    return [bytes.fromhex(row["wire_hex"]) for row in rows]


_DIRECTORIES = [
    wire
    for wire in (
        *_wires(_CASTORE["valid_directories"].values()),
        *_wires(_CASTORE["invalid_directories"]),
        *_wires(_MORE["not_canonical"]),
        *_wires(_MORE["limits"]),
    )
    if len(wire) < 10_000
]
_NODES = [
    encode_node(FileNode(_DIGEST, 300, executable=True), b"name"),
    encode_node(SymlinkNode(b"../target")),
    encode_node(FileNode(_DIGEST, 0)),
]
_PATH_INFOS = _wires(golden("pathinfo.json")["valid"]) + _wires(golden("pathinfo.json")["invalid"])
_PATH_INFO = decode_path_info(_PATH_INFOS[0])
_DESCRIPTION = Description(
    **{field.name: getattr(_PATH_INFO, field.name) for field in fields(Description)}
)


def form(form: Form[Any], *values: Any, seeds: list[bytes] | None = None) -> Target[Any]:
    """Any protobuf message has more than one form, but for Directories and Nodes."""
    return Target(
        form.decode,
        [
            *[form.encode(value) for value in values],
            *(seeds or []),
            b"",
            b"\x0a\x80\x80\x80\x80\x10",
        ],
        stays(form.encode, form.decode),
    )


WIRE: dict[str, Target[Any]] = {
    "directory": Target(decode_directory, _DIRECTORIES, canonical(encode_directory)),
    "node": Target(decode_node, _NODES, canonical(lambda named: encode_node(named[1], named[0]))),
    "path-info": Target(decode_path_info, _PATH_INFOS, stays(encode_path_info, decode_path_info)),
    "record": Target(
        # With the checksum that it needs to get any further.
        lambda data: decode_record(b"\1" + blake3(data).digest(8) + data),
        _PATH_INFOS,
        stays(encode_record, decode_record),
    ),
    "rpc-stat": form(messages.STAT_BLOB, StatBlob(_DIGEST, True)),
    "rpc-chunks": form(messages.BLOB_CHUNKS, [Chunk(_DIGEST, 5), Chunk(_DIGEST, 2**63)]),
    "rpc-digest": form(messages.READ_BLOB, _DIGEST),
    "rpc-data": form(messages.BLOB_DATA, b"some bytes"),
    "rpc-get-directory": form(messages.GET_DIRECTORY, GetDirectory(_DIGEST, True)),
    "rpc-directory": form(messages.DIRECTORY, Directory(()), seeds=_DIRECTORIES[:4]),
    "rpc-root-digest": form(messages.ROOT_DIGEST, _DIGEST),
    "rpc-path-hash": form(messages.PATH_HASH, _HASH),
    "rpc-root": form(messages.ROOT, FileNode(_DIGEST, 5)),
    "rpc-nar-identity": form(messages.NAR_IDENTITY, _IDENTITY),
    "rpc-nothing": form(messages.NOTHING, None),
    "rpc-describe": form(messages.DESCRIBE, Describe(_HASH), Describe(_HASH, _SHA256)),
    "rpc-description": form(messages.DESCRIPTION, _PATH_INFO, _DESCRIPTION),
    "rpc-open-nar": form(
        messages.OPEN_NAR, OpenNar(_HASH, _IDENTITY, 5), OpenNar(_HASH, _IDENTITY, 0, 0)
    ),
    "rpc-blob-digests": form(messages.BLOB_DIGESTS, [_DIGEST, _DIGEST]),
    "rpc-small-blobs": form(messages.SMALL_BLOBS, [FileNode(_DIGEST, 5), FileNode(_DIGEST, 0)]),
    "rpc-blob-batch": form(messages.BLOB_BATCH, [b"one", b"", b"two"]),
    "rpc-reflection": Target(
        REFLECTION[0].request.decode,
        [bytes_field(field, b"snix.castore.v1.BlobService") for field in range(3, 8)],
    ),
}
