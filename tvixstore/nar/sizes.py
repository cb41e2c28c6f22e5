"""How long NARs are, without reading a blob: from the Directories alone.

The length of a subtree's NAR follows from its Directory's digest, whatever service that came from,
so it is remembered by digest for the whole process. Range requests, which skip what comes before
their offset subtree by subtree, then cost no walk of the tree.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.errors import Incomplete, InvalidData
from tvixstore.nar.turns import Turns
from tvixstore.nar.writer import (
    MAX_LEVELS,
    close_directory,
    close_regular,
    open_directory,
    open_regular,
    symlink,
)
from tvixstore.tree import Content

# Some 250 bytes each.
_REMEMBERED = 1 << 16
# Directories asked for at a time.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class _Extent:
    """Of all the entries of a Directory: their bytes in a NAR, and how many levels they have."""

    size: int
    levels: int


_extents: OrderedDict[Digest, _Extent] = OrderedDict()


async def fetch_directory(content: Content, digest: Digest) -> Directory:
    """That Directory; raises `Incomplete` if it is absent."""
    return _present(digest, await content.directories.get(digest))


def _present(digest: Digest, directory: Directory | None) -> Directory:
    if directory is None:
        raise Incomplete(f"Directory {digest} is missing", digest.raw)
    return directory


def check_level(level: int) -> None:
    """Raises `InvalidData` for a node so deep that no NAR has it; the root's level is 1."""
    if level > MAX_LEVELS:
        raise InvalidData(f"the tree has more than {MAX_LEVELS} levels, which no NAR can have")


async def nar_size(content: Content, node: Node) -> int:
    """The size of `node`'s NAR.

    Raises `Incomplete` if a Directory is missing and `InvalidData` if the tree is too deep.
    """
    return await node_size(content, b"", node, 1)


async def node_size(content: Content, name: bytes, node: Node, level: int) -> int:
    """The size of `node` in a NAR, under `name` in a directory (`b""`: the root), at `level`."""
    check_level(level)
    if not isinstance(node, DirectoryNode):
        return _leaf_size(name, node)
    if (extent := _recall(node.digest)) is None:
        top = await fetch_directory(content, node.digest)
        extent = await _measure(content, top, level, Turns())
    check_level(level + extent.levels)
    return _directory_size(name, extent)


def _leaf_size(name: bytes, node: FileNode | SymlinkNode) -> int:
    if isinstance(node, FileNode):
        head, tail = open_regular(name, node.size, node.executable), close_regular(name, node.size)
        return len(head) + node.size + len(tail)
    return len(symlink(name, node.target))


def _directory_size(name: bytes, extent: _Extent) -> int:
    return len(open_directory(name)) + extent.size + len(close_directory(name))


async def _measure(content: Content, parent: Directory, level: int, turns: Turns) -> _Extent:
    """Measures the entries of `parent`, a Directory whose node is at `level`."""
    children = await _measure_children(content, parent, level + 1, turns)
    size = levels = 0
    for name, node in parent:
        await turns.take()
        if isinstance(node, DirectoryNode):
            extent = children[node.digest]
            size += _directory_size(name, extent)
            levels = max(levels, 1 + extent.levels)
        else:
            size += _leaf_size(name, node)
            levels = max(levels, 1)
    extent = _extents[parent.digest] = _Extent(size, levels)
    if len(_extents) > _REMEMBERED:
        _extents.popitem(last=False)
    return extent


async def _measure_children(
    content: Content, parent: Directory, level: int, turns: Turns
) -> dict[Digest, _Extent]:
    found: dict[Digest, _Extent] = {}
    unknown: dict[Digest, None] = {}
    for child in parent.children:
        if (extent := _recall(child.digest)) is None:
            unknown[child.digest] = None
        else:
            found[child.digest] = extent
    if unknown:
        # Here and not only in the end, so that the recursion stays shallow.
        check_level(level)
    digests = list(unknown)
    for start in range(0, len(digests), _BATCH):
        batch = digests[start : start + _BATCH]
        for digest, child_directory in zip(
            batch, await content.directories.get_many(batch), strict=True
        ):
            present = _present(digest, child_directory)
            found[digest] = await _measure(content, present, level, turns)
    return found


def _recall(digest: Digest) -> _Extent | None:
    if (extent := _extents.get(digest)) is not None:
        _extents.move_to_end(digest)
    return extent
