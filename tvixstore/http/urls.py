"""The names in our URLs: store-path hashes and NARs, parsed strictly and written. Pure.

A NAR is named by its hash, or, once its content is here, by its castore node. Both name the very
bytes, so that what a URL stands for never changes.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from tvixstore.castore import Node, decode_node, encode_node
from tvixstore.errors import InvalidData
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import Description, PathInfo

_HASH_DIGITS = 32
_SHA256_DIGITS = 52
# A node of this many bytes still leaves a URL that everybody takes; only long symlinks have more.
_MAX_NODE_BYTES = 4096
_MAX_NODE_DIGITS = (_MAX_NODE_BYTES * 4 + 2) // 3
_MAX_NAR_SIZE = 2**64 - 1
_MAX_FIELDS = 16
_ZSTD = ".zst"
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class NarByHash:
    """`nar/<32>-<52>.nar`, or compressed, with `.zst` behind it"""

    path_hash: bytes
    nar_sha256: bytes
    zstd: bool = False


@dataclass(frozen=True, slots=True)
class NarByNode:
    """`nar/tvix-castore/<node>?narsize=N&path=<32>`, or compressed, with `.zst` after the node"""

    node: Node
    nar_size: int
    path_hash: bytes | None
    zstd: bool = False


def parse_path_hash(text: str, query: str = "") -> bytes:
    """The 20 bytes of a store path's hash; raises `InvalidData`."""
    return _decode("store path hash", text, _HASH_DIGITS)


def parse_nar_by_hash(text: str, query: str = "", *, zstd: bool = False) -> NarByHash:
    """From `<32>-<52>`; raises `InvalidData`."""
    path_hash, _, nar_hash = text.partition("-")
    return NarByHash(
        _decode("store path hash", path_hash, _HASH_DIGITS),
        _decode("NAR hash", nar_hash, _SHA256_DIGITS),
        zstd,
    )


def parse_nar_by_node(text: str, query: str, *, zstd: bool = False) -> NarByNode:
    """From the node in base64url and the query; raises `InvalidData`."""
    try:
        fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise InvalidData(f"the query has more than {_MAX_FIELDS} fields") from None
    size = fields.get("narsize")
    if size is None:
        raise InvalidData("the query lacks narsize")
    if not _NUMBER.fullmatch(size) or not 0 < int(size) <= _MAX_NAR_SIZE:
        raise InvalidData(f"narsize {size[:40]!r} is not a number of bytes")
    path = fields.get("path")
    path_hash = None if path is None else parse_path_hash(path)
    return NarByNode(_decode_node(text), int(size), path_hash, zstd)


def nar_url(description: Description) -> str:
    """The URL of its NAR, relative to the root, that works for as long as a narinfo is kept."""
    digits = description.store_path.digits
    if isinstance(description, PathInfo):
        wire = encode_node(description.node)
        if len(wire) <= _MAX_NODE_BYTES:
            name = base64.urlsafe_b64encode(wire).rstrip(b"=").decode()
            return f"nar/tvix-castore/{name}?narsize={description.nar_size}&path={digits}"
    return f"nar/{digits}-{nixbase32.encode(description.nar_sha256)}.nar"


def zstd_nar_url(description: Description) -> str:
    """The same for its NAR in a zstd frame."""
    path, mark, query = nar_url(description).partition("?")
    return f"{path}{_ZSTD}{mark}{query}"


def _decode(what: str, text: str, digits: int) -> bytes:
    if len(text) != digits:
        raise InvalidData(f"{what} {text[:80]!r} has {len(text)} digits, expected {digits}")
    return nixbase32.decode(text)


def _decode_node(text: str) -> Node:
    if len(text) > _MAX_NODE_DIGITS:
        raise InvalidData(f"the node has {len(text)} digits, expected {_MAX_NODE_DIGITS} at most")
    if not _BASE64URL.fullmatch(text):
        raise InvalidData(f"node {text[:80]!r} is not base64url without padding")
    try:
        wire = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise InvalidData(f"node {text[:80]!r} is not base64url: one digit too many") from None
    if base64.urlsafe_b64encode(wire).rstrip(b"=") != text.encode():
        raise InvalidData(f"node {text[:80]!r} has spare bits set in its last digit")
    name, node = decode_node(wire)
    if name:
        raise InvalidData("the node of a NAR has no name")
    return node
