"""The table of blobs of more than one chunk: under their digests, the lists of their chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvixstore.blob.chunk_list import decode_chunk_list, encode_chunk_list
from tvixstore.errors import CorruptData, StoreError
from tvixstore.kv import BLOB
from tvixstore.log import Logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvixstore.blob.chunk_list import Entry
    from tvixstore.castore import Digest
    from tvixstore.kv import KeyValue, References

# Where this was said before it had a file of its own.
_log = Logger("tvixstore.blob.local")


@dataclass(eq=False)
class ChunkLists:
    """With `references`, whose table it then is, a list counts as referring to its chunks."""

    table: KeyValue
    references: References | None = None

    async def has(self, blob: Digest) -> bool:
        return await self.table.get(blob.raw) is not None

    async def get(self, blob: Digest) -> list[Entry] | None:
        """`None` if the blob has no list here. Raises `CorruptData` for a damaged one, and
        forgets it."""
        value = await self.table.get(blob.raw)
        if value is None:
            return None
        try:
            return decode_chunk_list(blob.raw, value)
        except CorruptData as error:
            await self.forget(blob, value, error)
            raise

    async def put(self, blob: bytes, entries: Sequence[Entry]) -> None:
        value = encode_chunk_list(blob, entries)
        if self.references is None:
            await self.table.apply([(blob, value)])
            return
        await self.references.holds.take([BLOB + blob])
        await self.references.put_chunk_list(blob, value, [chunk for chunk, _ in entries])

    async def forget_list(self, blob: Digest, entries: Sequence[Entry], reason: StoreError) -> None:
        """As `forget`, of a list that was read."""
        await self.forget(blob, encode_chunk_list(blob.raw, entries), reason)

    async def forget(self, blob: Digest, row: bytes, reason: StoreError) -> None:
        """Makes a blob absent that cannot be read by `row`, so that it is stored anew; another list
        that took the place of that one stays."""
        try:
            if await self.table.get(blob.raw) != row:
                return
            if self.references is None:
                await self.table.apply([(blob.raw, None)])
            else:
                await self.references.drop_chunk_list(blob.raw, row)
        except StoreError as error:
            _log.error("blob.not_forgotten", blob=blob, reason=str(error))
            return
        _log.error("blob.forgotten", blob=blob, reason=str(reason))
