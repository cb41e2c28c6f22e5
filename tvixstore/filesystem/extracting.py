"""Trees out of a store onto disk: small files by the batch, large ones side by side.

What is there already, and right, is left alone, so that an extraction that was broken off is
finished by another one; what is there and different is never touched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tvixstore.castore import EMPTY_DIGEST, Digest, DirectoryNode, FileNode, Node
from tvixstore.errors import CorruptData, Incomplete, TreeError
from tvixstore.filesystem.filling import SMALL
from tvixstore.filesystem.hand import Hand
from tvixstore.filesystem.importing import OnProgress, TreeProgress, nobody
from tvixstore.filesystem.inside import closure_of
from tvixstore.filesystem.items import (
    BATCH_ITEMS,
    Item,
    Sharing,
    batches,
    files_of,
    items_below,
    prepare,
    put_items,
    share_items,
)
from tvixstore.filesystem.nar_hash import absolute
from tvixstore.filesystem.open_file import OpenFile
from tvixstore.filesystem.placing import Placing
from tvixstore.filesystem.spots import Spot
from tvixstore.parallel import first_of, in_parallel
from tvixstore.pools import Pools
from tvixstore.tree import Content

# So many batches are under way at a time, and so many files of a batch are read at a time that have
# to be waited for.
_AT_ONCE: Final = 4
_READ_AT_ONCE: Final = 32
# What is written of a large file in one go.
_SLICE: Final = 1 << 20

Result = TypeVar("Result")


@dataclass(eq=False)
class Extractor:
    """Puts trees of `content` on disk, several at a time if called so.

    With `link`, files of the same contents share them: by reflinks, or where there are none as hard
    links, which are changed together by whoever changes one.
    """

    content: Content
    pools: Pools
    link: bool = False
    on_progress: OnProgress = nobody
    _slots: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_AT_ONCE), init=False, repr=False
    )

    # Held for short work in threads: two that do many short system calls are slower than one.
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def put(self, node: Node, target: str | bytes | os.PathLike[str]) -> None:
        """Has `target` become what `node` is. Its parent has to be there.

        Modes are those of `nix-store --restore`. Raises `TreeError`, which names the file, where
        something else is there or nothing can be written; `Incomplete` where content is missing.
        """
        place = absolute(target)
        top, name = os.path.split(place)
        if not name:
            raise TreeError(place, "cannot become a store path: name a new folder")
        async with self.content.keeping(node):
            items = await self._items(node, Spot((), name))
            placing = Placing(top)
            try:
                await self.pools.files.run(placing.begin, name, node)
                await _Extraction(self, placing, place).run(items)
            finally:
                placing.close()

    async def _items(self, root: Node, spot: Spot) -> Iterator[Item]:
        """All of a tree, each folder before what is in it."""
        if not isinstance(root, DirectoryNode):
            return iter([(spot, root, None)])
        return items_below(await closure_of(self.content, root.digest), root, spot)


class _Extraction:
    """One tree on its way."""

    def __init__(self, extractor: Extractor, placing: Placing, place: bytes) -> None:
        self._blobs = extractor.content.blobs
        self._files = extractor.pools.files
        self._link = extractor.link
        self._slots = extractor._slots
        self._turn = extractor._turn
        self._on_progress = extractor.on_progress
        self._placing = placing
        self._place = place
        # Files of each contents: where the first one is.
        self._first: dict[tuple[Digest, bool], Spot] = {}
        self._again: list[Sharing] = []
        # Folders that keep their marks until those are there, which may have beginnings.
        self._ends: list[Item] = []
        self._count = self._size = self._written = 0

    async def run(self, items: Iterator[Item]) -> None:
        parts = batches(items, self._shares)
        before = asyncio.Event()
        before.set()
        try:
            async with asyncio.TaskGroup() as group:
                while (batch := await self._next(parts)) is not None:
                    await self._slots.acquire()
                    done = asyncio.Event()
                    task = group.create_task(self._put(batch, before, done))
                    task.add_done_callback(lambda _: self._slots.release())
                    before = done
        except ExceptionGroup as errors:
            raise first_of(errors) from None
        for start in range(0, len(self._again), BATCH_ITEMS):
            async with self._turn:
                await self._by_hand(share_items, self._again[start : start + BATCH_ITEMS])
            self._count += len(self._again[start : start + BATCH_ITEMS])
            self._tell()
        for start in range(0, len(self._ends), BATCH_ITEMS):
            async with self._turn:
                ends = self._ends[start : start + BATCH_ITEMS]
                await self._by_hand(put_items, ends, (), True)

    @property
    def _ends_last(self) -> bool:
        """Whether a file that shares may have been begun by another extraction, which copied."""
        return self._link and not self._placing.fresh

    async def _next(self, parts: Iterator[list[Item]]) -> list[Item] | None:
        async with self._turn:
            return await self._files.run(next, parts, None)

    def _shares(self, spot: Spot, node: FileNode) -> bool:
        """Whether it is to share what another file has."""
        if not self._link or node.digest == EMPTY_DIGEST:
            return False
        first = self._first.setdefault((node.digest, node.executable), spot)
        if first is spot:
            return False
        self._again.append((spot, node, first))
        return True

    async def _put(self, batch: list[Item], before: asyncio.Event, done: asyncio.Event) -> None:
        """Puts a batch; the folders that end in it after all that comes `before` is there."""
        async with self._turn:
            left = batch
            if not self._placing.fresh:
                left = await self._by_hand(prepare, left)
            contents = await self._at_hand(files_of(left))
            ending = before.is_set() and not self._ends_last
            left = await self._by_hand(put_items, left, contents, ending)
        files = files_of(left)
        if len(files) == 1 and files[0].size > SMALL:
            await self._put_large(left[0][0], files[0])
        elif files:
            read = await self._read(files)
            async with self._turn:
                await self._by_hand(put_items, left, read, False)
        ends = [item for item in left if item[1] is None]
        await before.wait()
        if self._ends_last:
            self._ends += ends
        elif ends:
            async with self._turn:
                await self._by_hand(put_items, ends, (), True)
        done.set()
        files = files_of(batch)
        self._count += len(files)
        self._size += sum(file.size for file in files)
        self._tell()

    async def _at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        """The contents of those that can be had in one go."""
        if not files or files[0].size > SMALL:
            return [None] * len(files)
        contents = await self._blobs.at_hand(files)
        self._written += sum(len(data) for data in contents if data is not None)
        return contents

    async def _read(self, files: Sequence[FileNode]) -> list[bytes]:
        contents = {EMPTY_DIGEST: b""}

        async def read(file: FileNode) -> None:
            data = await self._blobs.read(file.digest, file.size)
            if data is None:
                raise Incomplete(f"blob {file.digest} is missing", file.digest.raw)
            if len(data) != file.size:
                raise CorruptData(f"blob {file.digest} is {len(data)} bytes long, not {file.size}")
            contents[file.digest] = data
            self._written += len(data)

        wanted = {file.digest: file for file in files if file.digest != EMPTY_DIGEST}
        await in_parallel(read, wanted.values(), _READ_AT_ONCE)
        return [contents[file.digest] for file in files]

    async def _put_large(self, spot: Spot, node: FileNode) -> None:
        stream = await self._blobs.open_read(node.digest, size=node.size)
        if stream is None:
            raise Incomplete(f"blob {node.digest} is missing", node.digest.raw)
        # Also of a thread that nobody waited for to the end.
        begun: list[OpenFile] = []
        async with stream:
            try:
                await self._by_hand(_begin, spot, node, begun)
                (opened,) = begun
                parts: list[bytes] = []
                held = size = 0
                async for part in stream:
                    parts.append(part)
                    held += len(part)
                    size += len(part)
                    if size > node.size:
                        # It may have no end.
                        break
                    if held >= _SLICE:
                        await self._files.run(_write_all, opened, parts)
                        parts, held = [], 0
                if size != node.size:
                    raise CorruptData(f"blob {node.digest} is not {node.size} bytes long")
                await self._files.run(_write_all, opened, parts)
                await self._files.run(opened.finish)
            finally:
                for each in begun:
                    each.close()
        self._written += node.size

    async def _by_hand(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Does `work` in a thread, with a hand of its own."""
        return await self._files.run(_handed, self._placing, work, arguments)

    def _tell(self) -> None:
        self._on_progress(TreeProgress(self._place, self._count, self._size, self._written))


def _handed(placing: Placing, work: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
    hand = placing.hand()
    try:
        return work(hand, *arguments)
    finally:
        hand.close()


def _begin(hand: Hand, spot: Spot, node: FileNode, begun: list[OpenFile]) -> None:
    begun.append(hand.begin(spot, node))


def _write_all(opened: OpenFile, parts: Sequence[bytes]) -> None:
    for part in parts:
        opened.write(part)
