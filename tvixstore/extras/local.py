"""Extras in a table: each as a blob, under its name.

A row holds when it was written, and the blob's digest and size, behind a version and a checksum.
"""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncIterable, Callable
from functools import partial
from typing import Final

from blake3 import blake3

from tvixstore.castore import Digest, FileNode
from tvixstore.errors import InvalidData
from tvixstore.extras.documents import merge_documents
from tvixstore.extras.names import ExtraName
from tvixstore.extras.service import ExtrasService, Found
from tvixstore.kv import KeyValue
from tvixstore.log import Logger
from tvixstore.pathinfo.root_rows import RootRows, Roots
from tvixstore.policy.striped import StripedLocks
from tvixstore.tree import Content

_log = Logger(__name__)

_VERSION: Final = b"\x01"
_CHECKSUM_BYTES: Final = 8
# No kind of extra is called that.
_LINK: Final = b"link/"
# What the table is called where references are counted.
TABLE: Final = "extras"
# Unix milliseconds, digest, size.
_ROW: Final = struct.Struct(">Q32sQ")


class LocalExtras(ExtrasService):
    """Rows in `table`, blobs in `content`; `roots` counts what the rows refer to."""

    def __init__(
        self,
        table: KeyValue,
        content: Content,
        roots: Roots | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.table = table
        self.blobs = content.blobs
        self._content = content
        self._rows = RootRows(TABLE, table, roots)
        self._now = now
        # Rows that were not ours to read, or whose blob is gone.
        self.lost = 0
        self._changing = StripedLocks()

    async def find(self, name: ExtraName) -> Found | None:
        row = await self.table.get(name.key)
        if row is None:
            return None
        node = await self._here(row)
        if node is None:
            await self._forget(name, row)
            return None
        return Found(node.size, partial(self.blobs.open_read, node.digest, 0, None, node.size))

    async def put_document(self, name: ExtraName, data: bytes) -> None:
        with self._content.session():
            await self._merge(name, data)

    async def put_log(self, name: ExtraName, text: AsyncIterable[bytes]) -> None:
        # A log may take long to come, and what it has in common with others must not go meanwhile.
        with self._content.session():
            await self._write_log(name, text)

    async def add_link(self, file: str) -> None:
        """Remembers that a document which was fetched refers to the NAR in that file."""
        await self.table.put_if_absent(_LINK + file.encode(), _VERSION)

    async def has_link(self, file: str) -> bool:
        return await self.table.get(_LINK + file.encode()) is not None

    async def _merge(self, name: ExtraName, data: bytes) -> None:
        # Two at once would each keep its own signatures alone.
        async with self._changing.of(name.key):
            merged = merge_documents(name, await self._read(name), data)
            await self._point(name, FileNode(await self.blobs.put(merged), len(merged)))

    async def _write_log(self, name: ExtraName, text: AsyncIterable[bytes]) -> None:
        size = 0
        async with await self.blobs.open_write() as writer:
            async for piece in text:
                size += len(piece)
                await writer.write(piece)
            digest = await writer.close()
        async with self._changing.of(name.key):
            await self._point(name, FileNode(digest, size))

    async def _read(self, name: ExtraName) -> bytes | None:
        row = await self.table.get(name.key)
        node = None if row is None else await self._here(row)
        return None if node is None else await self.blobs.read(node.digest, node.size)

    async def _here(self, row: bytes) -> FileNode | None:
        """What `row` refers to, if that makes sense and is here."""
        try:
            node = _decode(row)
        except InvalidData:
            return None
        return node if await self.blobs.has(node.digest) else None

    async def _point(self, name: ExtraName, node: FileNode) -> None:
        """Has `name` mean that blob, durably."""
        await self._rows.put(name.key, _encode(node, int(self._now() * 1000)), node)

    async def _forget(self, name: ExtraName, row: bytes) -> None:
        self.lost += 1
        _log.warning("extra.lost", key=name.path)
        async with self._changing.of(name.key):
            await self._rows.drop(name.key, row)


def _encode(node: FileNode, at: int) -> bytes:
    body = _ROW.pack(at, node.digest.raw, node.size)
    return _VERSION + blake3(body).digest(_CHECKSUM_BYTES) + body


def _decode(row: bytes) -> FileNode:
    """Raises `InvalidData` on anything that `_encode` did not write."""
    body = row[len(_VERSION) + _CHECKSUM_BYTES :]
    if row != _VERSION + blake3(body).digest(_CHECKSUM_BYTES) + body or len(body) != _ROW.size:
        raise InvalidData("row is of another version, or does not have the checksum that it says")
    _, digest, size = _ROW.unpack(body)
    return FileNode(Digest(digest), size)
