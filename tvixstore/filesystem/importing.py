"""Trees from disk into a store: read, hashed, cut and stored at the same time.

Threads read and hash (`reading.py`) while what they have read is stored: blobs, then Directories,
children before parents, then the path info. Whatever breaks an import off, there is no path info
before all of its content is there; what nobody refers to goes with the next collection.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from tvixstore.blob.chunking import Chunking
from tvixstore.castore import Digest, Directory, DirectoryNode, Node, SizeRule
from tvixstore.errors import InvalidData, TreeError
from tvixstore.filesystem.nar_hash import absolute
from tvixstore.filesystem.reading import Batch, TreeReading
from tvixstore.filesystem.walk import LargeFile
from tvixstore.nix import ContentAddress, NixHash, check_new_name
from tvixstore.parallel import first_of
from tvixstore.pathinfo import PathInfo, PathInfoService
from tvixstore.pools import Pools
from tvixstore.tree import Content

# Batches that are stored at a time, while the next one is read.
_AT_ONCE: Final = 4
# A large file goes on its way in slices, and is hashed, where it is not sent, in longer strides.
_SLICE: Final = 2 << 20
_STRIDE: Final = 64 << 20
# What stores cut blobs by, as a rule: their first chunk tells whether they may be there.
_CHUNKING: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class TreeProgress:
    """How far an import is. `sent` are the bytes of `size` that were not in the store yet."""

    path: bytes
    files: int = 0
    size: int = 0
    sent: int = 0


OnProgress = Callable[[TreeProgress], None]


def nobody(_: TreeProgress) -> None:
    """Nobody wants to know."""


@dataclass(eq=False)
class Importer:
    """Imports trees into `content` and `path_infos`, several at a time if called so.

    `sizes` is the rule by which Directories state theirs; of more than `directory_bytes` the store
    takes none.
    """

    content: Content
    path_infos: PathInfoService
    pools: Pools
    sizes: SizeRule = SizeRule.DOCUMENTED
    on_progress: OnProgress = nobody
    directory_bytes: int | None = None
    _slots: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_AT_ONCE), init=False, repr=False
    )

    async def add(
        self, path: str | bytes | os.PathLike[str], *, name: str | None = None, flat: bool = False
    ) -> PathInfo:
        """The tree at `path` as a store path, named `name` or as the file is.

        The path is that of `nix-store --add`; with `flat`, of a file alone, that of
        `nix-store --add-fixed sha256`. Raises `TreeError` for what cannot be taken, and
        `InvalidData` for a name that no store path can have; no path info is put then.
        """
        place = absolute(path)
        if name is None:
            name = _name(place)
        else:
            check_new_name(name)
        with self.content.session():
            return await self._add(place, name, flat=flat)

    async def _add(self, place: bytes, name: str, *, flat: bool) -> PathInfo:
        reading = TreeReading(place, self.sizes, flat=flat, most=self.directory_bytes)
        importing = _Import(self, reading)
        try:
            async with asyncio.TaskGroup() as group:
                await importing.run(group, self._slots)
        except ExceptionGroup as errors:
            raise first_of(errors) from None
        finally:
            reading.close()
        root, nar, contents = reading.finish()
        await self._put_directories(root, importing.directories)
        address = (
            ContentAddress("recursive", NixHash("sha256", nar.sha256))
            if contents is None
            else ContentAddress("flat", NixHash("sha256", contents))
        )
        return await self.path_infos.put(
            PathInfo(
                store_path=address.store_path(name),
                nar_sha256=nar.sha256,
                nar_size=nar.size,
                ca=address,
                node=root,
            )
        )

    async def _put_directories(self, root: Node, directories: dict[Digest, Directory]) -> None:
        if not isinstance(root, DirectoryNode):
            return
        # All of them, whatever is there: a tier may have the root alone, of somebody who looked.
        async with await self.content.directories.put_closure() as putter:
            for directory in directories.values():
                await putter.put(directory)
            await putter.close()


class _Import:
    """One tree on its way."""

    def __init__(self, importer: Importer, reading: TreeReading) -> None:
        self.directories: dict[Digest, Directory] = {}
        self._blobs = importer.content.blobs
        self._files = importer.pools.files
        self._on_progress = importer.on_progress
        self._reading = reading
        self._count = self._size = self._sent = 0

    async def run(self, group: asyncio.TaskGroup, slots: asyncio.Semaphore) -> None:
        """Reads to the end, and begins to store all that is read, in tasks of `group`."""
        last = False
        while not last:
            batch = await self._files.run(self._reading.batch)
            last = batch.last
            self.directories.update((each.digest, each) for each in batch.directories)
            self._count += batch.files
            if batch.blobs:
                await slots.acquire()
                storing = group.create_task(self._store(batch))
                # Also of one that is cancelled before it has begun.
                storing.add_done_callback(lambda _: slots.release())
            else:
                self._tell()
            if batch.file is not None:
                await self._pass(batch.file)

    async def _store(self, batch: Batch) -> None:
        self._sent += await self._blobs.put_lacking(batch.blobs)
        self._advance(batch.size)

    async def _pass(self, file: LargeFile) -> None:
        """A large file: sent while it is read, if the store does not even have its beginning."""
        known = self._reading.known(file)
        head = await self._files.run(self._reading.read, file, 0, _SLICE)
        self._advance(len(head))
        if known is not None:
            # Read once more for the NAR, which is to be that of what was stored, whatever the
            # file's times say: a mapped file changes without them.
            hasher = blake3(head)
            await self._hash(file, len(head), hasher.update)
            digest = Digest(hasher.digest())
            if digest != known:
                raise TreeError(file.path, "changed while it was read: try again")
        elif await self._blobs.lacking([await self._files.run(_first_chunk, head)]):
            digest = await self._send(file, head, self._reading.read, counted=len(head))
        else:
            hasher = blake3(head)
            await self._hash(file, len(head), hasher.update)
            digest = Digest(hasher.digest())
            if await self._blobs.lacking([digest]):
                # It was counted when it was hashed.
                if await self._send(file, b"", LargeFile.read, counted=file.size) != digest:
                    raise TreeError(file.path, "changed while it was read: try again")
        self._reading.pass_file(file, digest)

    async def _hash(self, file: LargeFile, offset: int, update: Callable[[bytes], object]) -> None:
        while offset < file.size:
            begin = offset
            offset = await self._files.run(self._reading.hash, file, offset, _STRIDE, update)
            self._advance(offset - begin)

    async def _send(
        self,
        file: LargeFile,
        head: bytes,
        read: Callable[[LargeFile, int, int], bytes],
        *,
        counted: int,
    ) -> Digest:
        """All of the file, of which `head` was read, as a blob; `counted` bytes are counted."""
        offset = 0
        async with await self._blobs.open_write() as writer:
            while offset < file.size:
                data = head or await self._files.run(read, file, offset, _SLICE)
                head = b""
                await writer.write(data)
                offset += len(data)
                self._sent += len(data)
                self._advance(max(0, offset - counted))
                counted = max(offset, counted)
            return await writer.close()

    def _advance(self, size: int) -> None:
        self._size += size
        self._tell()

    def _tell(self) -> None:
        self._on_progress(TreeProgress(self._reading.path, self._count, self._size, self._sent))


def _first_chunk(head: bytes) -> Digest:
    size = Chunking(_CHUNKING).cut(memoryview(head))[0]
    return Digest(blake3(head[:size]).digest())


def _name(place: bytes) -> str:
    """What a store path is called that was made of what is at `place`."""
    try:
        name = os.path.basename(place).decode()
        check_new_name(name)
    except (UnicodeDecodeError, InvalidData):
        raise TreeError(
            place, "has no name that a store path can have: say one (--name, or `name`)"
        ) from None
    return name
