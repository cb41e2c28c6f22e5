"""The wire form of entries: a node under a name, as Directory and Node messages both frame it.

An entry's bytes are what its digest covers, so only one form is legal: fields in number order,
defaults left out, varints minimal, nothing unknown. The reader therefore doesn't dispatch on
field numbers; it walks the one legal sequence, and an entry whose fields don't end exactly where
its length says is wrong, whatever the reason. Reading past the end shows as `IndexError` or as a
short slice whose position is beyond the end, so bounds are checked once an entry, not once a field.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import NoReturn, TypeAlias

from tvixstore.castore.digest import DIGEST_BYTES, Digest
from tvixstore.castore.nodes import MAX_SIZE, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.errors import InvalidData

Entry: TypeAlias = tuple[bytes, Node]

# Tags of a Directory's three lists, and of a Node's three alternatives: fields 1, 2 and 3.
_TAGS = DIRECTORY, FILE, SYMLINK = 0x0A, 0x12, 0x1A

# Tags within an entry.
_NAME, _TARGET, _SIZE = 0x0A, 0x12, 0x18
# These two come with the only value that may follow: a digest's length, and true.
_DIGEST = bytes([0x12, DIGEST_BYTES])
_EXECUTABLE = b"\x20\x01"


def encode_entry(name: bytes, node: Node) -> bytes:
    """One entry, its tag and length in front; an empty name is left out."""
    head = b"\x0a%b%b" % (encode_varint(len(name)), name) if name else b""
    # Files first: there are the most of them.
    if isinstance(node, FileNode):
        tag, rest = FILE, _encode_content(node)
        if node.executable:
            rest += _EXECUTABLE
    elif isinstance(node, DirectoryNode):
        tag, rest = DIRECTORY, _encode_content(node)
    else:
        tag = SYMLINK
        rest = b"\x12%b%b" % (encode_varint(len(node.target)), node.target)
    return b"%c%b%b%b" % (tag, encode_varint(len(head) + len(rest)), head, rest)


def _encode_content(node: FileNode | DirectoryNode) -> bytes:
    size = b"\x18" + encode_varint(node.size) if node.size else b""
    return b"%b%b%b" % (_DIGEST, node.digest.raw, size)


def encode_entries(entries: Iterable[Entry]) -> bytes:
    """Entries that are in the order of their names, as the body of a Directory message."""
    # Sorting is stable, so by the tag in front alone each of the three lists stays in order.
    parts = [encode_entry(name, node) for name, node in entries]
    parts.sort(key=itemgetter(0))
    return b"".join(parts)


def encode_varint(value: int) -> bytes:
    if value < 0x80:
        return b"%c" % value
    if value < 0x4000:
        # The sizes of most files.
        return b"%c%c" % (value & 0x7F | 0x80, value >> 7)
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
    # Nearly all numbers here are of one byte, and a call for each would take half of the time.
    tag, length, at = data[start], data[start + 1], start + 2
    if length >= 0x80:
        length, at = _take_varint(data, start + 1)
    end = at + length
    name = b""
    if data[at] == _NAME:
        length, begin = data[at + 1], at + 2
        if length >= 0x80:
            length, begin = _take_varint(data, at + 1)
        elif length == 0:
            _refuse(start, tag, name, "has an empty name written out")
        at = begin + length
        name = data[begin:at]
    if tag == SYMLINK:
        if data[at] != _TARGET:
            _refuse(start, tag, name, "has no target where it belongs")
        length, begin = _take_varint(data, at + 1)
        at = begin + length
        node: Node = SymlinkNode(data[begin:at])
    else:
        begin = at + 2
        if data[at:begin] != _DIGEST:
            _refuse(start, tag, name, f"has no digest of {DIGEST_BYTES} bytes where it belongs")
        at = begin + DIGEST_BYTES
        digest = Digest(data[begin:at])
        size = 0
        if at < end and data[at] == _SIZE:
            size, at = _take_varint(data, at + 1)
            if size == 0:
                _refuse(start, tag, name, "has a size of 0 written out")
        if tag == FILE:
            executable = data[at:end] == _EXECUTABLE
            if executable:
                at = end
            node = FileNode(digest, size, executable)
        else:
            node = DirectoryNode(digest, size)
    if at != end or end > len(data) or tag not in _TAGS:
        _refuse(start, tag, name, "has fields that are unknown, out of order or cut off")
    return name, node, end


def _take_varint(data: bytes, start: int) -> tuple[int, int]:
    """The number at `start`, and where it ends."""
    value, shift, at = 0, 0, start
    while (byte := data[at]) >= 0x80 and shift < 63:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    value |= byte << shift
    if value > MAX_SIZE or (byte == 0 and at > start):
        raise InvalidData(f"number at byte {start} is not minimal, or above 64 bits")
    return value, at + 1


def _refuse(start: int, tag: int, name: bytes, why: str) -> NoReturn:
    if tag not in _TAGS:
        why = f"has the tag {tag}, which is not known"
    raise InvalidData(f"entry {name!r} at byte {start} {why}")
