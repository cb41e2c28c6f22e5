"""Path infos in a table: each under its path's hash, as a record of `pathinfo.codec`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from tvixstore.errors import CorruptData, InvalidData
from tvixstore.kv import KeyValue, References, key_of
from tvixstore.kv.held import HeldStream
from tvixstore.log import Logger
from tvixstore.nix import KeyRing, nixbase32
from tvixstore.pathinfo.access import LastAccess
from tvixstore.pathinfo.audit import PathInfoAudit
from tvixstore.pathinfo.codec import decode_record, encode_record
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.merge import merge
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.policy.lru import Lru
from tvixstore.policy.striped import StripedLocks
from tvixstore.streams import ByteStream
from tvixstore.tree import Content

if TYPE_CHECKING:
    from tvixstore.pools import Pool

_log = Logger(__name__)

# Bytes of records that are kept decoded, which takes several times as much memory; and rows that
# `list` reads at a time.
_DECODED = 8 << 20
_PAGE = 200


@dataclass(eq=False)
class LocalPathInfoService(PathInfoService):
    """A codec over `table`; `keys` are trusted when two path infos for one path contradict.

    The very same object is handed out as long as its row stays the same. Reads are recorded in
    `access`, if there is one; `aclose` writes what still waits to go there. With `references`,
    whose table `pathinfos` then is `table`, what is put counts as referring to its tree, and a NAR
    that is being read is held.
    """

    table: KeyValue
    content: Content | None = field(default=None, repr=False)
    _: KW_ONLY
    access: LastAccess | None = field(default=None, repr=False)
    references: References | None = field(default=None, repr=False)
    keys: KeyRing | None = field(default=None, repr=False)
    # Held by whoever writes to a path; of all services over one table, the same.
    locks: StripedLocks = field(default_factory=StripedLocks, repr=False)
    # Rows found that were not a record of their key's path.
    corrupt: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        # The record beside what it decodes to: an entry counts only while the table agrees.
        self._decoded: Lru[bytes, tuple[bytes, PathInfo]] = Lru(_DECODED)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        record = await self.table.get(path_hash)
        if record is None:
            return None
        try:
            info = self._decode(path_hash, record)
        except InvalidData as error:
            await self._drop(path_hash, record, error)
            raise CorruptData(
                f"path info of {nixbase32.encode(path_hash)} is corrupt on disk: {error}"
            ) from error
        if self.access is not None:
            self.access.record(path_hash)
        return info

    async def put(self, info: PathInfo) -> PathInfo:
        key = info.store_path.hash
        async with self._lock(key):
            before = await self.table.get(key)
            old = None
            if before is not None:
                try:
                    old = self._decode(key, before)
                except InvalidData as error:
                    # Overwritten below.
                    self._count_corrupt(key, error)
            record = encode_record(merge(old, info, self.keys))
            stored = self._decode(key, record)
            await self._write(key, record, before, stored)
        return stored

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        info = await self.get(description.store_path.hash)
        if info is None or self.references is None or (key := key_of(info.node)) is None:
            return await super().open_nar(description, offset, length)
        hold = await self.references.holds.hold(key)
        try:
            # Only what is found now stays: it may have been evicted before it was held.
            stream = await super().open_nar(description, offset, length)
        except BaseException:
            hold.release()
            raise
        if stream is None:
            hold.release()
            return None
        return HeldStream(stream, hold)

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        after: bytes | None = None
        while rows := await self.table.scan(after=after, limit=_PAGE):
            for path_hash, record in rows:
                try:
                    info = decode_record(record)
                except InvalidData as error:
                    # One bad row does not hide all others; dropped, it is absent like any other.
                    await self._drop(path_hash, record, error)
                    continue
                yield info
            after = rows[-1][0]

    def audit(self, pool: Pool) -> PathInfoAudit:
        """For whoever goes through all of it, in threads of `pool`."""
        return PathInfoAudit(self, pool)

    async def drop(self, path_hash: bytes, record: bytes) -> bool:
        """Makes a path absent of which `record` is still what is kept."""
        async with self._lock(path_hash):
            if self.references is not None:
                return await self.references.drop_root("pathinfos", path_hash, record)
            if await self.table.get(path_hash) != record:
                return False
            await self.table.apply([(path_hash, None)])
            return True

    async def aclose(self) -> None:
        """Writes the reads that wait to be recorded."""
        if self.access is not None:
            await self.access.aclose()

    async def _write(
        self, key: bytes, record: bytes, before: bytes | None, stored: PathInfo
    ) -> None:
        if self.references is None:
            if record != before:
                await self.table.apply([(key, record)])
            if self.access is not None:
                self.access.record(key)
            return
        # Also where nothing changes: it may have been evicted since it was read.
        also = [] if self.access is None else [("access", (key, self.access.row(key)))]
        await self.references.put_root("pathinfos", key, record, stored.node, also)

    def _decode(self, path_hash: bytes, record: bytes) -> PathInfo:
        known = self._decoded.get(path_hash)
        if known is not None and known[0] == record:
            return known[1]
        info = decode_record(record)
        if info.store_path.hash != path_hash:
            raise InvalidData(f"the record is of another path, {info.store_path}")
        self._decoded.put(path_hash, (record, info), len(record))
        return info

    async def _drop(self, path_hash: bytes, record: bytes, error: InvalidData) -> None:
        self._count_corrupt(path_hash, error)
        # A put may have mended it meanwhile.
        await self.drop(path_hash, record)

    def _count_corrupt(self, path_hash: bytes, error: InvalidData) -> None:
        self.corrupt += 1
        _log.error("path_info.corrupt", key=nixbase32.encode(path_hash), reason=error)

    def _lock(self, path_hash: bytes) -> asyncio.Lock:
        return self.locks.of(path_hash)
