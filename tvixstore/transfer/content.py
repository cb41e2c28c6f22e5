"""Castore from one pair of services to another: what is there already is not sent again.

Blobs go first, then the Directories that name them, children before parents: whatever moment it is
broken off at, a Directory that is there has all that is below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from tvixstore.castore import (
    EMPTY_DIGEST,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SymlinkNode,
)
from tvixstore.directory.closure import checked_closure, children_first
from tvixstore.errors import CorruptData, Incomplete
from tvixstore.parallel import in_parallel
from tvixstore.policy.lru import Lru
from tvixstore.transfer.watcher import Meter
from tvixstore.tree import Content

# Blobs up to this size go together, as many as make a batch.
SMALL: Final = 1 << 20
BATCH_ITEMS: Final = 256
BATCH_BYTES: Final = 4 << 20
# Batches and larger blobs under way at a time, of all paths together.
AT_ONCE: Final = 4
# Blobs that the target is asked of, or the source for, at a time.
ASKED_AT_ONCE: Final = 32
# To ask of a blob as short as this costs as much as to send it. So of many of them a few are asked
# of, and if the target has none of these, the others are sent.
SHORT: Final = 64 << 10
SAMPLE: Final = 16
# Digests of blobs that are known to be there; to forget one costs asking for it once more.
_KNOWN: Final = 200_000


class ContentCopier:
    """Copies trees from `source` to `target`, several at a time if called so."""

    def __init__(self, source: Content, target: Content) -> None:
        self._source = source
        self._target = target
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._there: Lru[Digest, bool] = Lru(_KNOWN)
        self._sending: dict[Digest, asyncio.Event] = {}

    async def copy(self, node: Node, meter: Meter) -> None:
        """All of `node`.

        Raises `Incomplete` where the source lacks a part.
        """
        match node:
            case FileNode():
                await self._copy_blobs({node.digest: node.size}, meter)
            case DirectoryNode():
                await self._copy_tree(node.digest, meter)
            case SymlinkNode():
                pass

    async def _copy_tree(self, root: Digest, meter: Meter) -> None:
        closure: dict[Digest, Directory] = {}
        async with aclosing(checked_closure(self._source.directories, root)) as directories:
            async for directory in directories:
                closure[directory.digest] = directory
        if not closure:
            raise Incomplete(f"Directory {root} is missing in the source", root.raw)
        await self._copy_blobs(_blobs_of(closure.values()), meter)
        # What is there was put children first, by whomever.
        if await self._target.directories.get(root) is None:
            async with await self._target.directories.put_closure() as putter:
                for directory in children_first(closure, root):
                    await putter.put(directory)
                await putter.close()

    async def _copy_blobs(self, blobs: Mapping[Digest, int], meter: Meter) -> None:
        async def copy(batch: Sequence[tuple[Digest, int]]) -> None:
            async with self._turns:
                await self._copy_batch(batch, meter)

        await in_parallel(copy, _batches(blobs), AT_ONCE)

    async def _copy_batch(self, batch: Sequence[tuple[Digest, int]], meter: Meter) -> None:
        sent = asyncio.Event()
        # What others are sending just now is only waited for, at the end: nobody waits in between.
        others = [self._sending[digest] for digest, _ in batch if digest in self._sending]
        ours = [(digest, size) for digest, size in batch if digest not in self._sending]
        self._sending.update((digest, sent) for digest, _ in ours)
        try:
            await self._send(ours, meter)
        finally:
            for digest, _ in ours:
                del self._sending[digest]
            # Should it have failed, that ends the others as well.
            sent.set()
        for other in others:
            await other.wait()
        meter.spared(sum(size for _, size in batch) - sum(size for _, size in ours))

    async def _send(self, batch: Sequence[tuple[Digest, int]], meter: Meter) -> None:
        missing = await self._missing(batch)
        meter.spared(sum(size for digest, size in batch if digest not in missing))
        if len(batch) == 1 and batch[0][1] > SMALL:
            if missing:
                await self._copy_large(*batch[0], meter)
        elif missing:
            await self._copy_small(missing)
            meter.sent(sum(missing.values()))
        for digest, _ in batch:
            self._there.put(digest, True)

    async def _missing(self, batch: Sequence[tuple[Digest, int]]) -> dict[Digest, int]:
        """Those that the target does not have, or may not, with their sizes."""
        there = {digest for digest, _ in batch if self._there.get(digest)}

        async def ask(digest: Digest) -> None:
            if await self._target.blobs.has(digest):
                there.add(digest)

        unknown = [digest for digest, _ in batch if digest not in there]
        # Batches are sent from the front, so the first ones tell of a copy that was broken off.
        sample = unknown[:SAMPLE]
        await in_parallel(ask, sample, ASKED_AT_ONCE)
        found = len(there.intersection(sample))
        sizes = dict(batch)
        rest = [each for each in unknown[SAMPLE:] if found or sizes[each] > SHORT]
        await in_parallel(ask, rest, ASKED_AT_ONCE)
        return {digest: size for digest, size in batch if digest not in there}

    async def _copy_small(self, blobs: Mapping[Digest, int]) -> None:
        read: dict[Digest, bytes] = {}

        async def get(digest: Digest) -> None:
            data = await self._source.blobs.read(digest, blobs[digest])
            if data is None:
                raise _missing(digest)
            if len(data) != blobs[digest]:
                raise _other_size(digest, blobs[digest])
            read[digest] = data

        await in_parallel(get, blobs, ASKED_AT_ONCE)
        stored = await self._target.blobs.put_many([read[digest] for digest in blobs])
        for digest, came in zip(blobs, stored, strict=True):
            if digest != came:
                raise _something_else(digest, came)

    async def _copy_large(self, digest: Digest, size: int, meter: Meter) -> None:
        """In one stream, cut as the source has cut it where the target can do that."""
        chunks = await self._source.blobs.chunks(digest)
        stream = await self._source.blobs.open_read(digest, size=size)
        if stream is None:
            raise _missing(digest)
        left = size
        boundaries = [chunk.size for chunk in chunks or ()]
        async with stream, await self._target.blobs.open_write(boundaries) as writer:
            async for part in stream:
                left -= len(part)
                await writer.write(part)
                meter.sent(len(part))
            if left:
                raise _other_size(digest, size)
            if (came := await writer.close()) != digest:
                raise _something_else(digest, came)


def _blobs_of(closure: Iterable[Directory]) -> dict[Digest, int]:
    """Each blob that files in it name, once, with its size."""
    return {
        node.digest: node.size
        for directory in closure
        for _, node in directory
        if isinstance(node, FileNode) and node.digest != EMPTY_DIGEST
    }


def _batches(blobs: Mapping[Digest, int]) -> Iterator[list[tuple[Digest, int]]]:
    """Each large one by itself, as it comes; small ones together."""
    batch: list[tuple[Digest, int]] = []
    held = 0
    for digest, size in blobs.items():
        if size > SMALL:
            yield [(digest, size)]
            continue
        batch.append((digest, size))
        held += size
        if len(batch) >= BATCH_ITEMS or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _missing(digest: Digest) -> Incomplete:
    return Incomplete(f"blob {digest} is missing in the source", digest.raw)


def _other_size(digest: Digest, size: int) -> CorruptData:
    return CorruptData(f"blob {digest} is not {size} bytes long, as its file says")


def _something_else(digest: Digest, came: Digest) -> CorruptData:
    return CorruptData(f"what came for blob {digest} is {came}")
