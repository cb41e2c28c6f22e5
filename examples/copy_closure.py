"""Copies store paths, with all that they refer to, from one composition into another.

    python examples/copy_closure.py from.toml to.toml /nix/store/…-hello-2.12

What is there already is not sent again, down to the chunk. A path is put after its content and
after the paths that it refers to, so that whatever interrupts this leaves nothing half there.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable

import tvixstore
from tvixstore.castore import Digest, DirectoryNode, FileNode, Node
from tvixstore.errors import StoreError
from tvixstore.nix import StorePath
from tvixstore.pathinfo import PathInfo


async def copy_closure(
    source: tvixstore.Store, target: tvixstore.Store, roots: Iterable[StorePath]
) -> list[StorePath]:
    """Copies what is missing in `target`; the paths that were, in the order they were put."""
    copied = []
    for info in await closure(source, target, roots):
        await copy_content(source, target, info.node)
        await target.path_infos.put(info)
        copied.append(info.store_path)
    return copied


async def closure(
    source: tvixstore.Store, target: tvixstore.Store, roots: Iterable[StorePath]
) -> list[PathInfo]:
    """What `roots` need and `target` lacks; a path comes after those that it refers to."""
    missing: dict[bytes, PathInfo] = {}
    seen: set[bytes] = set()
    # Paths whose references are still to be looked at, and then the path itself once more.
    ahead = [(path, False) for path in roots]
    while ahead:
        path, below_is_done = ahead.pop()
        if below_is_done:
            # Taken out and in again: now it comes after what was found below it.
            missing[path.hash] = missing.pop(path.hash)
        elif path.hash not in seen:
            seen.add(path.hash)
            if await target.path_infos.get(path.hash) is None:
                info = await source.path_infos.get(path.hash)
                if info is None:
                    raise StoreError(f"{path} is not there")
                missing[path.hash] = info
                ahead.append((path, True))
                ahead += [(reference, False) for reference in info.references]
    return list(missing.values())


async def copy_content(source: tvixstore.Store, target: tvixstore.Store, root: Node) -> None:
    """Blobs first, then the Directories that name them."""
    match root:
        case FileNode():
            await copy_blob(source, target, root)
        case DirectoryNode():
            if await target.directories.get(root.digest) is not None:
                return
            closure = [each async for each in source.directories.get_closure(root.digest)]
            blobs: dict[Digest, FileNode] = {}
            for directory in closure:
                blobs |= {n.digest: n for _, n in directory if isinstance(n, FileNode)}
            for node in blobs.values():
                await copy_blob(source, target, node)
            async with await target.directories.put_closure() as putter:
                for directory in reversed(closure):
                    await putter.put(directory)
                await putter.close()


async def copy_blob(source: tvixstore.Store, target: tvixstore.Store, node: FileNode) -> None:
    if await target.blobs.has(node.digest):
        return
    chunks = await source.blobs.chunks(node.digest)
    stream = await source.blobs.open_read(node.digest, size=node.size)
    if stream is None:
        raise StoreError(f"blob {node.digest} is not there")
    # Cut as it is there, it shares its chunks with what else comes from there.
    async with stream, await target.blobs.open_write([c.size for c in chunks or ()]) as writer:
        async for part in stream:
            await writer.write(part)
        await writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="the compose file to copy from")
    parser.add_argument("target", help="the compose file to copy to")
    parser.add_argument("paths", nargs="+", type=StorePath.from_absolute)
    arguments = parser.parse_args()
    async with (
        tvixstore.open(arguments.source) as source,
        tvixstore.open(arguments.target) as target,
    ):
        for path in await copy_closure(source, target, arguments.paths):
            print(path)


if __name__ == "__main__":
    asyncio.run(main())
