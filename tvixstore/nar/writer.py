"""NAR framing, written: everything of an archive that is not the contents of its files.

A NAR is made of nothing but length-prefixed strings, and the grammar leaves only a few sequences of
them between two variable parts. Each such sequence is a constant here, so that a node costs one
join, and the reader recognises the very same constants. A node is written with the name that it
has in its directory; the root of an archive is the node without one, `b""`.
"""

from __future__ import annotations

from struct import Struct

U64 = Struct("<Q")
# More levels of nodes than this are refused, as Nix 2.35 does.
MAX_LEVELS = 64
# What a length in a NAR may say at most: Nix counts with signed 64 bits.
MAX_LENGTH = 2**63 - 1

PADDING = tuple(bytes(-size % 8) for size in range(8))


def string(data: bytes) -> bytes:
    """One string as a NAR holds it: length, bytes, zeros up to a multiple of 8."""
    size = len(data)
    return b"".join((U64.pack(size), data, PADDING[size % 8]))


def strings(*words: bytes) -> bytes:
    return b"".join(map(string, words))


MAGIC = strings(b"nix-archive-1")
ENTRY = strings(b"entry", b"(", b"name")
NODE = strings(b"node")
DIRECTORY = strings(b"(", b"type", b"directory")
SYMLINK = strings(b"(", b"type", b"symlink", b"target")
REGULAR = strings(b"(", b"type", b"regular", b"contents")
EXECUTABLE = strings(b"(", b"type", b"regular", b"executable", b"", b"contents")
CLOSE = strings(b")")
# A node in a directory closes itself and then its entry.
CLOSE_TWICE = CLOSE * 2

_ENDS = tuple(padding + CLOSE for padding in PADDING)
_ENTRY_ENDS = tuple(padding + CLOSE_TWICE for padding in PADDING)


def opening(name: bytes) -> bytes:
    """What comes before a node: the archive's magic, or the entry's name."""
    if not name:
        return MAGIC
    size = len(name)
    return b"".join((ENTRY, U64.pack(size), name, PADDING[size % 8], NODE))


def open_directory(name: bytes) -> bytes:
    """The beginning of a directory; its entries follow, and `close_directory`."""
    return opening(name) + DIRECTORY


def close_directory(name: bytes) -> bytes:
    return CLOSE_TWICE if name else CLOSE


def open_regular(name: bytes, size: int, executable: bool = False) -> bytes:
    """The beginning of a file; `size` bytes of contents follow, and `close_regular`."""
    return b"".join((opening(name), EXECUTABLE if executable else REGULAR, U64.pack(size)))


def close_regular(name: bytes, size: int) -> bytes:
    return (_ENTRY_ENDS if name else _ENDS)[size % 8]


def symlink(name: bytes, target: bytes) -> bytes:
    """A whole symbolic link."""
    return b"".join((opening(name), SYMLINK, string(target), close_directory(name)))
