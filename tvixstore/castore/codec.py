"""The canonical codec of Directory and Node messages (castore.v1), strict in both directions.

What decodes encodes to the very same bytes, so a digest may be taken of either.
"""

from __future__ import annotations

from tvixstore.castore.directory import Directory
from tvixstore.castore.nodes import Node, check_name
from tvixstore.castore.wire import Entry, encode_entry, take_entry
from tvixstore.errors import InvalidData


def encode_directory(directory: Directory) -> bytes:
    return directory.wire


def decode_directory(data: bytes) -> Directory:
    """Raises `InvalidData` unless `data` is the canonical form of a valid Directory."""
    entries: list[Entry] = []
    at = tag = 0
    last = b""
    try:
        while at < len(data):
            before, tag = tag, data[at]
            name, node, at = take_entry(data, at)
            if tag < before or (tag == before and name <= last):
                raise InvalidData(f"entry {name!r} ({node}) does not come after {last!r}")
            last = name
            entries.append((name, node))
    except IndexError:
        raise InvalidData(f"Directory of {len(data)} bytes ends within an entry") from None
    directory = Directory.of(entries)
    # The canonical form is unique, so it needn't be made again, for the digest above all.
    directory.__dict__["wire"] = data
    return directory


def encode_node(node: Node, name: bytes = b"") -> bytes:
    """A Node message; without a name, which is left out, it is one for a root."""
    return encode_entry(name, node)


def decode_node(data: bytes) -> tuple[bytes, Node]:
    """The name, which may be empty, and the node of a canonical Node message."""
    try:
        name, node, end = take_entry(data, 0)
    except IndexError:
        raise InvalidData(f"Node of {len(data)} bytes ends within its fields") from None
    if end != len(data):
        raise InvalidData(f"Node ends at byte {end}, but {len(data)} bytes were sent")
    if name:
        check_name(name)
    return name, node
