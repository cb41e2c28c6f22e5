"""Whether all of a tree is here, without reading its files."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing
from typing import Final

from tvixstore.castore import EMPTY_DIGEST, Digest, DirectoryNode, FileNode, Node
from tvixstore.errors import Incomplete
from tvixstore.parallel import together
from tvixstore.tree import Content

# Blobs that are looked for in one go.
_ASKED: Final = 2000


async def look_for_all(content: Content, node: Node) -> None:
    """Raises `Incomplete` if a blob or a Directory of `node`'s tree is absent."""
    if isinstance(node, FileNode):
        await _look_for_blobs(content, [node.digest])
    if not isinstance(node, DirectoryNode):
        return
    come = False
    wanted: set[Digest] = set()
    async with aclosing(content.directories.get_closure(node.digest)) as closure:
        async for directory in closure:
            come = True
            wanted.update(each.digest for _, each in directory if isinstance(each, FileNode))
            if len(wanted) >= _ASKED:
                await _look_for_blobs(content, wanted)
                wanted.clear()
    if not come:
        raise Incomplete(f"Directory {node.digest} is missing", node.digest.raw)
    await _look_for_blobs(content, wanted)


async def _look_for_blobs(content: Content, digests: Collection[Digest]) -> None:
    asked = [digest for digest in digests if digest != EMPTY_DIGEST]
    # What is to be written to a cache may be behind it.
    doubtful = list(await content.blobs.lacking(asked))
    for digest, has in zip(doubtful, await together(content.blobs.has, doubtful), strict=True):
        if not has:
            raise Incomplete(f"blob {digest} is missing", digest.raw)
