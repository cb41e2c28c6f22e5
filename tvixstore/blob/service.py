"""The blob service: bytes by their BLAKE3 digest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from tvixstore.castore import Digest, FileNode
from tvixstore.errors import CorruptData
from tvixstore.streams import ByteStream


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a blob: `size` bytes with the BLAKE3 `digest`."""

    digest: Digest
    size: int


class BlobWriter(ABC):
    """Takes one blob's bytes. Nothing is visible before `close`; leaving without it aborts."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Takes the next bytes, of any number."""

    @abstractmethod
    async def close(self) -> Digest:
        """Commits the blob, durably, and returns its digest. May be called again."""

    @abstractmethod
    async def abort(self) -> None:
        """Forgets what was written. Does nothing after `close`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.abort()


class BlobService(ABC):
    """Bytes by digest, self-verifying. The empty blob is always there."""

    @abstractmethod
    async def has(self, digest: Digest) -> bool:
        """Whether the blob, or the chunk, of that digest is here."""

    @abstractmethod
    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        """The blob's bytes from `offset`, at most `length` of them, or `None` if it is absent.

        A chunk is readable by its own digest. A reader of a whole blob never gets the last byte of
        one that does not hash to its digest: `CorruptData` comes instead. A part is served only
        from a chunk list whose whole was verified when it was committed here. An offset past the
        end is an empty stream. `size` is a hint: a blob no longer than the chunker's minimum has
        no chunk list to look for. Whoever stops reading closes the stream.
        """

    @abstractmethod
    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        """A writer for one blob.

        `boundaries`, a hint, are the sizes of the chunks that another store cut it into; kept, the
        chunk digests of that store exist here too.
        """

    @abstractmethod
    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        """The blob's chunks in order; `[]` if there is nothing more granular; `None` if absent."""

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        """Those of `digests` that whoever stores their blobs here has to write.

        A backend may look many up in one go. What is not lacking stays for as long as what is put.
        """
        return {digest for digest in digests if not await self.has(digest)}

    async def read(self, digest: Digest, size: int | None = None) -> bytes | None:
        """The whole blob in memory, verified, or `None` if it is absent: for small ones."""
        if (stream := await self.open_read(digest, size=size)) is None:
            return None
        return await stream.read_all()

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        """The contents of small files, in their order, as far as they can be had in one go.

        They are verified. Nothing is said of the others, nor of what is wrong with one: those are
        to be read by `read`.
        """
        return [None] * len(files)

    async def put(self, data: bytes) -> Digest:
        """Stores one blob that is in memory."""
        async with await self.open_write() as writer:
            await writer.write(data)
            return await writer.close()

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        """Stores many small blobs; a backend may make them durable in one go."""
        return [await self.put(data) for data in blobs]

    async def put_lacking(self, blobs: Mapping[Digest, bytes]) -> int:
        """Stores those of some MiB of small blobs that are lacking; how many bytes those have.

        Each key has to be what this process computed from just these bytes, since a backend may
        believe it: never what somebody else said of them.
        """
        lacking = await self.lacking(list(blobs))
        new = {digest: data for digest, data in blobs.items() if digest in lacking}
        if new:
            for digest, came in zip(new, await self.put_many(list(new.values())), strict=True):
                if digest != came:
                    raise CorruptData(f"blob {digest} was stored as {came}")
        return sum(map(len, new.values()))
