"""Blobs in a dict: for tests, and for compositions that keep nothing."""

from __future__ import annotations

from collections.abc import Sequence

from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.castore import EMPTY_DIGEST, Digest, FileNode
from tvixstore.streams import BytesStream, ByteStream


class MemoryBlobService(BlobService):
    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {EMPTY_DIGEST: b""}

    def __repr__(self) -> str:
        return "memory"

    async def has(self, digest: Digest) -> bool:
        return digest in self.blobs

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        data = self.blobs.get(digest)
        if data is None:
            return None
        end = len(data) if length is None else offset + length
        return BytesStream(data[offset:end])

    async def at_hand(self, files: Sequence[FileNode]) -> list[bytes | None]:
        contents = [self.blobs.get(file.digest) for file in files]
        return [
            data if data is not None and len(data) == file.size else None
            for file, data in zip(files, contents, strict=True)
        ]

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return _MemoryBlobWriter(self.blobs)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return [] if digest in self.blobs else None


class _MemoryBlobWriter(BlobWriter):
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self._blobs = blobs
        self._parts: list[bytes] = []
        self._digest: Digest | None = None

    async def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))

    async def close(self) -> Digest:
        if self._digest is None:
            data = b"".join(self._parts)
            self._digest = Digest.of(data)
            self._blobs.setdefault(self._digest, data)
        return self._digest

    async def abort(self) -> None:
        self._parts.clear()
