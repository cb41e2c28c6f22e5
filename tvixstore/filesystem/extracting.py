"""Trees out of a store onto disk: read and written at the same time, several files at once.

What is there already, and right, is left alone, so that an extraction that was broken off is
finished by another one; what is there and different is never touched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from tvixstore.castore import EMPTY_DIGEST, Digest, Directory, DirectoryNode, FileNode, Node
from tvixstore.errors import CorruptData, Incomplete, TreeError
from tvixstore.filesystem.importing import OnProgress, TreeProgress, nobody
from tvixstore.filesystem.inside import closure_of
from tvixstore.filesystem.nar_hash import absolute
from tvixstore.filesystem.placing import Hand, OpenFile, Placing, Spot, Way
from tvixstore.nar.sizes import check_level
from tvixstore.pools import Pools
from tvixstore.transfer.parallel import first_of, in_parallel
from tvixstore.tree import Content

# A batch is full at so many things, or bytes of small files; so many are under way at a time.
_BATCH_ITEMS: Final = 500
_BATCH_BYTES: Final = 4 << 20
_AT_ONCE: Final = 4
# Files up to this size are read whole, so many of a batch at a time.
SMALL: Final = 1 << 20
_READ_AT_ONCE: Final = 32
# What is written of a large file in one go.
_SLICE: Final = 1 << 20

Result = TypeVar("Result")

# Something of a tree, and where it goes; a folder comes with what is in it.
_Item: TypeAlias = tuple[Spot, Node, Directory | None]
_FileItem: TypeAlias = tuple[Spot, FileNode]


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
                await self.pools.files.run(placing.open)
                await _Extraction(self, placing, place).run(items)
            finally:
                placing.close()

    async def _items(self, root: Node, spot: Spot) -> Iterator[_Item]:
        """All of a tree, each folder before what is in it."""
        if not isinstance(root, DirectoryNode):
            return iter([(spot, root, None)])
        return _items_below(await closure_of(self.content, root.digest), root, spot)


def _items_below(
    closure: dict[Digest, Directory], root: DirectoryNode, spot: Spot
) -> Iterator[_Item]:
    """One by one: there may be far more of them than Directories, which are said once each."""
    yield spot, root, closure[root.digest]
    way: Way = (spot.name,)
    stack = [(way, iter(closure[root.digest].entries))]
    while stack:
        way, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        name, node = entry
        check_level(len(way) + 1)
        if isinstance(node, DirectoryNode):
            yield Spot(way, name), node, closure[node.digest]
            stack.append(((*way, name), iter(closure[node.digest].entries)))
        else:
            yield Spot(way, name), node, None


class _Extraction:
    """One tree on its way."""

    def __init__(self, extractor: Extractor, placing: Placing, place: bytes) -> None:
        self._blobs = extractor.content.blobs
        self._files = extractor.pools.files
        self._cpu = extractor.pools.cpu
        self._link = extractor.link
        self._slots = extractor._slots
        self._on_progress = extractor.on_progress
        self._placing = placing
        self._place = place
        # Nothing was there before, so nothing is looked for.
        self._fresh = not os.path.lexists(place)
        # Files of each contents: where the first one is.
        self._first: dict[tuple[Digest, bool], Spot] = {}
        self._again: list[tuple[Spot, FileNode, Spot]] = []
        self._count = self._size = self._written = 0

    async def run(self, items: Iterator[_Item]) -> None:
        batches = self._batches(items)
        try:
            async with asyncio.TaskGroup() as group:
                while (batch := await self._cpu.run(next, batches, None)) is not None:
                    await self._slots.acquire()
                    task = group.create_task(self._put(batch))
                    task.add_done_callback(lambda _: self._slots.release())
        except ExceptionGroup as errors:
            raise first_of(errors) from None
        for start in range(0, len(self._again), _BATCH_ITEMS):
            await self._by_hand(_again, self._again[start : start + _BATCH_ITEMS], self._fresh)
            self._count += len(self._again[start : start + _BATCH_ITEMS])
            self._tell()

    def _batches(self, items: Iterator[_Item]) -> Iterator[list[_Item]]:
        batch: list[_Item] = []
        size = 0
        for item in items:
            spot, node, _ = item
            if isinstance(node, FileNode):
                if self._shares(spot, node):
                    continue
                if node.size > SMALL:
                    # By itself, after the folders that it is in.
                    yield batch
                    yield [item]
                    batch, size = [], 0
                    continue
                size += node.size
            batch.append(item)
            if len(batch) >= _BATCH_ITEMS or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        yield batch

    def _shares(self, spot: Spot, node: FileNode) -> bool:
        """Whether it is to share what another file has."""
        if not self._link or node.digest == EMPTY_DIGEST:
            return False
        first = self._first.setdefault((node.digest, node.executable), spot)
        if first is spot:
            return False
        self._again.append((spot, node, first))
        return True

    async def _put(self, batch: list[_Item]) -> None:
        missing = await self._by_hand(_prepare, batch, self._fresh)
        if len(missing) == 1 and missing[0][1].size > SMALL:
            await self._put_large(*missing[0])
        elif missing:
            contents = await self._read(missing)
            await self._by_hand(_write, missing, contents)
        files = [node for _, node, _ in batch if isinstance(node, FileNode)]
        self._count += len(files)
        self._size += sum(node.size for node in files)
        self._tell()

    async def _read(self, files: Sequence[_FileItem]) -> dict[Digest, bytes]:
        contents: dict[Digest, bytes] = {EMPTY_DIGEST: b""}

        async def read(node: FileNode) -> None:
            data = await self._blobs.read(node.digest, node.size)
            if data is None:
                raise Incomplete(f"blob {node.digest} is missing", node.digest.raw)
            if len(data) != node.size:
                raise CorruptData(f"blob {node.digest} is {len(data)} bytes long, not {node.size}")
            contents[node.digest] = data
            self._written += len(data)

        wanted = {node.digest: node for _, node in files if node.digest != EMPTY_DIGEST}
        await in_parallel(read, wanted.values(), _READ_AT_ONCE)
        return contents

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


def _prepare(hand: Hand, batch: Sequence[_Item], fresh: bool) -> list[_FileItem]:
    """Puts folders and links; the files that are not there."""
    missing: list[_FileItem] = []
    for spot, node, directory in batch:
        if directory is not None:
            hand.folder(spot, directory)
        elif isinstance(node, FileNode):
            if fresh or not hand.has(spot, node):
                missing.append((spot, node))
        elif not isinstance(node, DirectoryNode):
            hand.link(spot, node.target)
    return missing


def _begin(hand: Hand, spot: Spot, node: FileNode, begun: list[OpenFile]) -> None:
    begun.append(hand.begin(spot, node))


def _write(hand: Hand, files: Sequence[_FileItem], contents: dict[Digest, bytes]) -> None:
    for spot, node in files:
        hand.file(spot, node, contents[node.digest])


def _again(hand: Hand, files: Sequence[tuple[Spot, FileNode, Spot]], fresh: bool) -> None:
    for spot, node, first in files:
        if fresh or not hand.has(spot, node):
            hand.again(spot, node, first)


def _write_all(opened: OpenFile, parts: Sequence[bytes]) -> None:
    for part in parts:
        opened.write(part)
