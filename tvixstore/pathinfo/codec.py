"""Path infos as bytes: the PathInfo message of store.v1, and the record a table keeps.

The message is written in one form (fields in number order, defaults left out), so equal path infos
have equal bytes. One thing it cannot hold, and so it is left out: a deriver that is no `.drv`.

A record is the message behind a version and a checksum. Path infos have no digest of their own, and
a bit that flipped on disk should show here, not as a signature that a client refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blake3 import blake3

from tvixstore.castore import Node, decode_node, encode_node
from tvixstore.castore.message import Message, bytes_field, number_field, text_field
from tvixstore.errors import InvalidData
from tvixstore.nix import ContentAddress, NixHash, Signature, StorePath
from tvixstore.nix.content_address import Method
from tvixstore.nix.hashes import Algorithm
from tvixstore.pathinfo.info import Description, PathInfo

_DRV = ".drv"
_SHA256_BYTES = 32

# CA.Hash: method and algorithm in the order of their numbers.
_CA_KINDS: Final[tuple[tuple[Method, Algorithm], ...]] = (
    ("recursive", "sha256"),
    ("recursive", "sha1"),
    ("recursive", "sha512"),
    ("recursive", "md5"),
    ("text", "sha256"),
    ("flat", "sha1"),
    ("flat", "md5"),
    ("flat", "sha256"),
    ("flat", "sha512"),
)

_VERSION: Final = b"\x01"
_CHECKSUM_BYTES: Final = 8
_HEADER_BYTES: Final = len(_VERSION) + _CHECKSUM_BYTES


def encode_record(info: PathInfo) -> bytes:
    message = encode_path_info(info)
    return _VERSION + _checksum(message) + message


def decode_record(record: bytes) -> PathInfo:
    """Raises `InvalidData` on anything that `encode_record` did not write."""
    if not record.startswith(_VERSION):
        raise InvalidData(f"record has the version {record[:1].hex() or 'none'}, not 01")
    message = record[_HEADER_BYTES:]
    if record[len(_VERSION) : _HEADER_BYTES] != _checksum(message):
        raise InvalidData("record does not have the checksum that it says")
    return decode_path_info(message)


def _checksum(message: bytes) -> bytes:
    return blake3(message).digest(_CHECKSUM_BYTES)


def encode_path_info(info: PathInfo) -> bytes:
    """The PathInfo message of store.v1."""
    references = [bytes_field(2, reference.hash) for reference in info.references]
    return b"".join(
        (
            bytes_field(1, encode_node(info.node, info.store_path.base_name.encode())),
            *references,
            bytes_field(3, encode_narinfo(info)),
        )
    )


def encode_narinfo(info: Description) -> bytes:
    """The NARInfo message of store.v1: everything but the store path and its node."""
    signatures = [
        bytes_field(3, text_field(1, each.name) + bytes_field(2, each.data))
        for each in info.signatures
    ]
    names = [text_field(4, reference.base_name) for reference in info.references]
    return b"".join(
        (
            number_field(1, info.nar_size),
            bytes_field(2, info.nar_sha256),
            *signatures,
            *names,
            _encode_deriver(info.deriver),
            _encode_content_address(info.ca),
        )
    )


def _encode_deriver(deriver: StorePath | None) -> bytes:
    if deriver is None or not deriver.name.endswith(_DRV) or deriver.name == _DRV:
        return b""
    name = deriver.name.removesuffix(_DRV)
    return bytes_field(5, text_field(1, name) + bytes_field(2, deriver.hash))


def _encode_content_address(ca: ContentAddress | None) -> bytes:
    if ca is None:
        return b""
    number = _CA_KINDS.index((ca.method, ca.hash.algorithm))
    return bytes_field(6, number_field(1, number) + bytes_field(2, ca.hash.digest))


def decode_path_info(data: bytes) -> PathInfo:
    """The path info in a PathInfo message.

    Raises `InvalidData`, with the field and the position, unless it is valid: a node named by a
    store path, each reference named, hashes and signatures of their length, valid names.
    """
    message = Message(data, "path info")
    store_path, node = _decode_node(message.required(1, "node"))
    references = message.repeated(2, "references")
    return PathInfo.of(decode_narinfo(message.required(3, "narinfo"), store_path, references), node)


def decode_narinfo(
    data: bytes, store_path: StorePath, references: Sequence[bytes] | None = None
) -> Description:
    """What a NARInfo message says of `store_path`.

    Raises `InvalidData`, with the field and the position, unless it is valid and names each of
    `references`, the hashes that are stated beside it, if they are.
    """
    message = Message(data, "narinfo")
    nar_sha256 = message.required(2, "nar_sha256")
    if len(nar_sha256) != _SHA256_BYTES:
        raise InvalidData(
            f"narinfo.nar_sha256 is {len(nar_sha256)} bytes long, expected {_SHA256_BYTES}"
        )
    return Description(
        store_path=store_path,
        references=_decode_references(references, message.repeated_text(4, "reference_names")),
        nar_size=message.number(1, "nar_size"),
        nar_sha256=nar_sha256,
        signatures=tuple(
            _decode_signature(each, f"narinfo.signatures[{position}]")
            for position, each in enumerate(message.repeated(3, "signatures"))
        ),
        deriver=_decode_deriver(message.optional(5, "deriver")),
        ca=_decode_content_address(message.optional(6, "ca")),
    )


def _decode_node(data: bytes) -> tuple[StorePath, Node]:
    try:
        name, node = decode_node(data)
        return StorePath.from_base_name(name.decode()), node
    except UnicodeDecodeError:
        raise InvalidData("path info.node: its name is not UTF-8") from None
    except InvalidData as error:
        raise InvalidData(f"path info.node: {error}") from error


def _decode_references(
    hashes: Sequence[bytes] | None, names: Sequence[str]
) -> tuple[StorePath, ...]:
    if hashes is not None and len(hashes) != len(names):
        raise InvalidData(f"{len(hashes)} references, but {len(names)} reference_names")
    references = []
    for position, name in enumerate(names):
        try:
            path = StorePath.from_base_name(name)
        except InvalidData as error:
            raise InvalidData(f"narinfo.reference_names[{position}]: {error}") from error
        if hashes is not None and path.hash != hashes[position]:
            raise InvalidData(
                f"references[{position}] is {hashes[position].hex()}, "
                f"but narinfo.reference_names[{position}] is {name!r}"
            )
        references.append(path)
    return tuple(references)


def _decode_signature(data: bytes, where: str) -> Signature:
    message = Message(data, where)
    try:
        return Signature(message.text(1, "name"), message.required(2, "data"))
    except InvalidData as error:
        raise InvalidData(f"{where}: {error}") from error


def _decode_deriver(data: bytes | None) -> StorePath | None:
    if data is None:
        return None
    message = Message(data, "narinfo.deriver")
    name = message.text(1, "name")
    path_hash = message.required(2, "digest")
    try:
        # Checked without its suffix too: only that is what has to be a name here.
        return StorePath(path_hash, StorePath(path_hash, name).name + _DRV)
    except InvalidData as error:
        raise InvalidData(f"narinfo.deriver: {error}") from error


def _decode_content_address(data: bytes | None) -> ContentAddress | None:
    if data is None:
        return None
    message = Message(data, "narinfo.ca")
    number = message.number(1, "type")
    if number >= len(_CA_KINDS):
        raise InvalidData(f"narinfo.ca.type {number} is not known")
    method, algorithm = _CA_KINDS[number]
    try:
        return ContentAddress(method, NixHash(algorithm, message.required(2, "digest")))
    except InvalidData as error:
        raise InvalidData(f"narinfo.ca: {error}") from error
