"""Nodes: what a name in a Directory, or the root of a store path, stands for.

A node has no name of its own here. The name belongs to the Directory entry that holds it, or to the
store path whose root it is, and is put into the wire form there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvixstore.castore.digest import Digest
from tvixstore.errors import InvalidData

MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4095
MAX_SIZE = 2**64 - 1

_RESERVED = frozenset([b"", b".", b".."])


@dataclass(frozen=True, slots=True)
class DirectoryNode:
    """A subtree; `size` is as its maker counted it (see `castore.closure` for the two rules)."""

    digest: Digest
    size: int

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise InvalidData(f"size {self.size} is not an unsigned number of 64 bits")


@dataclass(frozen=True, slots=True)
class FileNode:
    """A regular file of `size` bytes whose contents are the blob `digest`."""

    digest: Digest
    size: int
    executable: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise InvalidData(f"size {self.size} is not an unsigned number of 64 bits")


@dataclass(frozen=True, slots=True)
class SymlinkNode:
    """A symbolic link; `target` is 1 to 4095 bytes without NUL."""

    target: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.target) <= MAX_TARGET_BYTES:
            raise InvalidData(
                f"symlink target is {len(self.target)} bytes long, expected 1 to {MAX_TARGET_BYTES}"
            )
        if b"\0" in self.target:
            raise InvalidData("symlink target holds a NUL byte")


Node: TypeAlias = DirectoryNode | FileNode | SymlinkNode


def check_name(name: bytes) -> None:
    """Raises `InvalidData` unless `name` may stand in a Directory; it need not be UTF-8."""
    if not 1 <= len(name) <= MAX_NAME_BYTES:
        raise InvalidData(f"name is {len(name)} bytes long, expected 1 to {MAX_NAME_BYTES}")
    if b"/" in name or b"\0" in name or name in _RESERVED:
        raise InvalidData(f"name {name!r} is not allowed in a Directory")


def check_names(names: Sequence[bytes]) -> None:
    """`check_name` of each; as long as all may stand, without a call for each."""
    joined = b"/".join(names)
    if (
        joined.count(b"/") > max(len(names) - 1, 0)
        or b"\0" in joined
        or not _RESERVED.isdisjoint(names)
        or max(map(len, names), default=0) > MAX_NAME_BYTES
    ):
        for name in names:
            check_name(name)
