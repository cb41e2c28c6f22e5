"""The wire form of entries: a node under a name, as Directory and Node messages both frame it.

An entry's bytes are what its digest covers, so only one form is legal: fields in number order,
defaults left out, varints minimal, nothing unknown. The reader therefore doesn't dispatch on
field numbers; it walks the one legal sequence, and an entry whose fields don't end exactly where
its length says is wrong, whatever the reason. Reading past the end shows as `IndexError` or as a
short slice whose position is beyond the end, so bounds are checked once an entry, not once a field.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from tvixstore.castore.digest import DIGEST_BYTES, Digest
from tvixstore.castore.nodes import MAX_SIZE, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.errors import InvalidData

if TYPE_CHECKING:
    from collections.abc import Iterable

Entry: TypeAlias = tuple[bytes, Node]

# Tags of a Directory's three lists, and of a Node's three alternatives: fields 1, 2 and 3.
DIRECTORY, FILE, SYMLINK = 0x0A, 0x12, 0x1A

# Tags within an entry.
_NAME, _TARGET, _SIZE, _EXECUTABLE = 0x0A, 0x12, 0x18, 0x20
_DIGEST = bytes([0x12, DIGEST_BYTES])
_TRUE = 1


def encode_entry(name: bytes, node: Node) -> bytes:
    """One entry, its tag and length in front; an empty name is left out."""
    body = b"\x0a%b%b" % (encode_varint(len(name)), name) if name else b""
    match node:
        case SymlinkNode(target):
            tag = SYMLINK
            body += b"\x12%b%b" % (encode_varint(len(target)), target)
        case DirectoryNode(digest, size):
            tag = DIRECTORY
            body += _encode_content(digest, size)
        case FileNode(digest, size, executable):
            tag = FILE
            body += _encode_content(digest, size)
            if executable:
                body += bytes([_EXECUTABLE, _TRUE])
    return b"%c%b%b" % (tag, encode_varint(len(body)), body)


def _encode_content(digest: Digest, size: int) -> bytes:
    return b"%b%b%b" % (_DIGEST, digest.raw, b"\x18" + encode_varint(size) if size else b"")


def encode_entries(entries: Iterable[Entry]) -> bytes:
    """Entries that are in the order of their names, as the body of a Directory message."""
    # Sorting is stable, so by the tag in front alone each of the three lists stays in order.
    parts = [encode_entry(name, node) for name, node in entries]
    parts.sort(key=itemgetter(0))
    return b"".join(parts)


def encode_varint(value: int) -> bytes:
    if value < 0x80:
        return b"%c" % value
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def take_entry(data: bytes, start: int) -> tuple[bytes, Node, int]:
    """The name and the node of the entry at `start`, and where it ends.

    The name is not checked, and may be empty. Raises `InvalidData`, or `IndexError` where `data`
    ends too early.
    """
    tag = data[start]
    length, at = _take_varint(data, start + 1)
    end = at + length
    name = b""
    if data[at] == _NAME:
        length, at = _take_varint(data, at + 1)
        if length == 0:
            _refuse(start, "has an empty name written out")
        name = data[at : at + length]
        at += length
    if tag == SYMLINK:
        target = b""
        if at < end and data[at] == _TARGET:
            length, at = _take_varint(data, at + 1)
            target = data[at : at + length]
            at += length
        if at == end:
            return name, SymlinkNode(target), end
    else:
        if data[at : at + 2] != _DIGEST:
            _refuse(start, f"({name!r}) has no digest of {DIGEST_BYTES} bytes where it belongs")
        digest = data[at + 2 : at + 2 + DIGEST_BYTES]
        at += 2 + DIGEST_BYTES
        size = 0
        if at < end and data[at] == _SIZE:
            size, at = _take_varint(data, at + 1)
            if size == 0:
                _refuse(start, f"({name!r}) has a size of 0 written out")
        if tag == DIRECTORY:
            if at == end:
                return name, DirectoryNode(Digest(digest), size), end
        elif tag == FILE:
            executable = at < end and data[at] == _EXECUTABLE and data[at + 1] == _TRUE
            if executable:
                at += 2
            if at == end:
                return name, FileNode(Digest(digest), size, executable), end
        else:
            _refuse(start, f"has the tag {tag}, which is not known")
    _refuse(
        start,
        f"({name!r}) has fields that are unknown, repeated, out of order or longer than the entry",
    )


def _take_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    start, value, shift = at, 0, 0
    while byte >= 0x80 and shift < 63:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        byte = data[at]
    value |= byte << shift
    if byte == 0 or value > MAX_SIZE:
        raise InvalidData(f"number at byte {start} is not minimal, or above 64 bits")
    return value, at + 1


def _refuse(start: int, why: str) -> NoReturn:
    raise InvalidData(f"entry at byte {start} {why}")
