"""A tree as what is to be put on disk: one thing after the other, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.filesystem.filling import SMALL
from tvixstore.filesystem.hand import Hand
from tvixstore.filesystem.sharing import share
from tvixstore.filesystem.spots import Spot, Way
from tvixstore.nar.sizes import check_level

# A batch is full at so many things, or bytes of small files.
BATCH_ITEMS: Final = 1000
_BATCH_BYTES: Final = 4 << 20

# Something of a tree, and where it goes; a folder comes with what is in it, and after all that once
# more, as nothing.
Item: TypeAlias = tuple[Spot, Node | None, Directory | None]
# A file, and where one is that it is to share contents with.
Sharing: TypeAlias = tuple[Spot, FileNode, Spot]


def items_below(
    closure: dict[Digest, Directory], root: DirectoryNode, spot: Spot
) -> Iterator[Item]:
    """One by one: there may be far more of them than Directories, which are said once each."""
    yield spot, root, closure[root.digest]
    stack = [(spot, iter(closure[root.digest].entries))]
    while stack:
        folder, entries = stack[-1]
        way: Way = (*folder.way, folder.name)
        for name, node in entries:
            spot = Spot(way, name)
            if isinstance(node, DirectoryNode):
                directory = closure[node.digest]
                if directory.entries:
                    check_level(len(way) + 2)
                yield spot, node, directory
                stack.append((spot, iter(directory.entries)))
                break
            yield spot, node, None
        else:
            stack.pop()
            yield folder, None, None


def batches(
    items: Iterator[Item], shares: Callable[[Spot, FileNode], bool]
) -> Iterator[list[Item]]:
    """Parts of a tree, each to be put at a time; without the files that `shares` takes."""
    batch: list[Item] = []
    size = 0
    for item in items:
        spot, node, _ = item
        if isinstance(node, FileNode):
            if shares(spot, node):
                continue
            if node.size > SMALL:
                # By itself, after the folders that it is in.
                yield batch
                yield [item]
                batch, size = [], 0
                continue
            size += node.size
        batch.append(item)
        if len(batch) >= BATCH_ITEMS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def prepare(hand: Hand, items: Sequence[Item]) -> list[Item]:
    """Puts folders and links; the files that are not there, and the ends of folders."""
    left: list[Item] = []
    for item in items:
        spot, node, directory = item
        if node is None or (isinstance(node, FileNode) and not hand.has(spot, node)):
            left.append(item)
        elif directory is not None:
            hand.folder(spot, directory)
        elif isinstance(node, SymlinkNode):
            hand.link(spot, node.target)
    return left


def files_of(items: Iterable[Item]) -> list[FileNode]:
    return [node for _, node, _ in items if isinstance(node, FileNode)]


def put_items(
    hand: Hand, items: Sequence[Item], contents: Sequence[bytes | None], ending: bool
) -> list[Item]:
    """Puts all but files that have no `contents`; those, and the ends of folders after them.

    Without `ending` those of all folders.
    """
    each = iter(contents)
    left: list[Item] = []
    for item in items:
        spot, node, directory = item
        if isinstance(node, FileNode):
            if (data := next(each)) is None:
                left.append(item)
                ending = False
            else:
                hand.file(spot, node, data)
        elif directory is not None:
            hand.folder(spot, directory)
        elif node is None:
            if ending:
                hand.finish(spot)
            else:
                left.append(item)
        elif isinstance(node, SymlinkNode):
            hand.link(spot, node.target)
    return left


def share_items(hand: Hand, files: Sequence[Sharing]) -> None:
    for spot, node, first in files:
        if hand.fresh or not hand.has(spot, node):
            share(hand, spot, node, first)
