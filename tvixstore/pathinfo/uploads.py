"""NARs that were uploaded, by the names of their files.

A NAR comes before its narinfo: with some clients hours before. So its content is kept for a day
without any path that names it, by a row that says what it was: `u<SHA-256 of the file>`, and, where
it has a name that is no hash, `n<name>` which leads there. Once a narinfo was accepted, that row
goes, and `k<SHA-256>` says for a year which path the file is of: the client that uploaded it may
remember the file's name, and asks for it by that. `t<expiry><key>` lists all rows by the time at
which they go.
"""

from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from typing import Final, NoReturn, TypeVar

from tvixstore.errors import InvalidData, StoreError
from tvixstore.kv import Change, KeyValue
from tvixstore.log import Logger
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.root_rows import RootRows, Roots
from tvixstore.pathinfo.upload_rows import (
    KnownFile,
    NarFile,
    Upload,
    decode_alias,
    decode_known,
    decode_upload,
    encode_alias,
    encode_known,
    encode_upload,
    until_of,
)
from tvixstore.policy.striped import StripedLocks
from tvixstore.policy.write_behind import WriteBehind

_log = Logger(__name__)

# Seconds for which an uploaded NAR waits for its narinfo; a client is told to skip its upload only
# while at least so many are left.
KEPT: Final = 86_400.0
_TO_SPARE: Final = 3600.0
# Seconds for which a file's name is known. Nix remembers narinfos for 30 days.
KNOWN: Final = 365 * 86_400.0
# Seconds between two looks for what has expired, and rows looked at in one go.
_SWEEPING: Final = 600.0
_PAGE: Final = 200
# Seconds, and files, after which what is known of them is written.
_DELAY: Final = 0.25
_BATCH: Final = 200
# Characters of a name, so that its key fits.
MAX_NAME: Final = 400

_UPLOAD, _NAME, _KNOWN_FILE, _INDEX = b"u", b"n", b"k", b"t"
_TIME: Final = struct.Struct(">Q")
_HASH_NAME: Final = re.compile(r"([0-9a-z]{52}|[0-9a-f]{64})\.nar(?:\.[a-z0-9]{1,8})?", re.ASCII)

# What the table is called where references are counted.
TABLE: Final = "uploads"

Row = TypeVar("Row")


def hash_in(name: str) -> bytes | None:
    """The SHA-256 of the file that is called `name`, if it is called by that."""
    match = _HASH_NAME.fullmatch(name)
    if match is None:
        return None
    digits = match[1]
    if len(digits) == 64:
        return bytes.fromhex(digits)
    try:
        return nixbase32.decode(digits)
    except InvalidData:
        return None


class Uploads:
    """What was uploaded lately, in `table`; durable. `roots` counts what its rows refer to."""

    def __init__(
        self,
        table: KeyValue,
        roots: Roots | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.table = table
        self._rows = RootRows(TABLE, table, roots)
        self._now = now
        # Rows that were not ours to read.
        self.corrupt = 0
        self._changing = StripedLocks()
        self._learning: WriteBehind[bytes, KnownFile] = WriteBehind(
            TABLE, self._write_known, delay=_DELAY, batch=_BATCH
        )

    async def add(self, name: str, upload: Upload) -> None:
        """Keeps the row of a NAR whose content is in, for a day; durable when it returns."""
        key = _UPLOAD + upload.file_sha256
        until = self._until(KEPT)
        async with self._changing.of(key):
            also = await self._listed(key, until)
            if hash_in(name) is None:
                alias = _NAME + name.encode()
                known_until = self._until(KNOWN)
                also += await self._listed(alias, known_until)
                also.append((alias, encode_alias(upload.file_sha256, known_until)))
            await self._rows.put(key, encode_upload(upload, until), upload.node, also)

    async def find(self, name: str) -> Upload | None:
        """The upload of the last day that is known by `name`, or by the hash in it."""
        digest = await self._digest(name)
        return None if digest is None else await self._read(_UPLOAD + digest, decode_upload)

    async def may_skip(self, name: str) -> Upload | None:
        """The same, if it will be there for a while."""
        digest = await self._digest(name)
        if digest is None:
            return None
        return await self._read(_UPLOAD + digest, decode_upload, self._until(_TO_SPARE))

    async def forget(self, upload: Upload) -> None:
        """Its content is gone: it has to be uploaded again."""
        await self._drop(upload.file_sha256)

    async def known(self, name: str) -> KnownFile | None:
        """The path whose narinfo was accepted with a file of that name."""
        digest = await self._digest(name)
        if digest is None:
            return None
        key = _KNOWN_FILE + digest
        return self._learning.get(key) or await self._read(key, decode_known)

    async def learn(self, file: NarFile, path_hash: bytes) -> None:
        """That path's narinfo was accepted: from now on the file is known to be of that path, and
        its content is kept by that alone.

        Durable a little later. What is lost with it is that the file need not be sent again.
        """
        fields = {each.name: getattr(file, each.name) for each in dataclass_fields(NarFile)}
        known = KnownFile(**fields, path_hash=path_hash)
        self._learning.put(_KNOWN_FILE + file.file_sha256, known)
        # At once: as long as it is kept for the day as well, evicting its path would free nothing.
        await self._drop(file.file_sha256)

    async def aclose(self) -> None:
        """Writes what waits."""
        await self._learning.aclose()

    async def keep_sweeping(self) -> NoReturn:
        """Drops what expires, every now and then; for a task that somebody ends."""
        while True:
            try:
                await self.sweep()
            except StoreError as error:
                # What has expired counts no longer, swept or not.
                _log.warning("uploads.not_swept", reason=str(error))
            await asyncio.sleep(_SWEEPING)

    async def sweep(self) -> None:
        """Drops what has expired, and with it what only that referred to."""
        now = _TIME.pack(self._until(0.0))
        while page := await self.table.scan(_INDEX, limit=_PAGE):
            expired = [row for row, _ in page if row[1 : 1 + _TIME.size] <= now]
            for index in expired:
                await self._expire(index)
            if len(expired) < len(page):
                break

    async def _write_known(self, files: Mapping[bytes, KnownFile]) -> None:
        # One commit, and no locks: these rows are written here alone. At worst one that expires in
        # this very moment is swept with its successor, and its file has to be uploaded again.
        until = self._until(KNOWN)
        changes: list[Change] = []
        for key, known in files.items():
            changes += await self._listed(key, until)
            changes.append((key, encode_known(known, until)))
        await self.table.apply(changes)

    async def _drop(self, file_sha256: bytes) -> None:
        key = _UPLOAD + file_sha256
        async with self._changing.of(key):
            if (row := await self.table.get(key)) is not None:
                await self._rows.drop(key, row)

    async def _expire(self, index: bytes) -> None:
        key = index[1 + _TIME.size :]
        async with self._changing.of(key):
            row = await self.table.get(key)
            # A row that was written again since is listed by its new time.
            if row is None or until_of(row) > self._until(0.0):
                await self.table.apply([(index, None)])
            elif key.startswith(_UPLOAD):
                await self._rows.drop(key, row)
                await self.table.apply([(index, None)])
            else:
                await self.table.apply([(key, None), (index, None)])

    async def _listed(self, key: bytes, until: int) -> list[Change]:
        """The changes that list `key` by its new expiry, and no longer by its old one."""
        changes: list[Change] = [(_INDEX + _TIME.pack(until) + key, b"")]
        old = await self.table.get(key)
        if old is not None and until_of(old) != until:
            changes.append((_INDEX + _TIME.pack(until_of(old)) + key, None))
        return changes

    async def _digest(self, name: str) -> bytes | None:
        digest = hash_in(name)
        if digest is not None or not 0 < len(name.encode()) <= MAX_NAME:
            return digest
        return await self._read(_NAME + name.encode(), decode_alias)

    async def _read(
        self, key: bytes, decode: Callable[[bytes], Row], at: int | None = None
    ) -> Row | None:
        """The row, if it still counts at the time `at` (by default now)."""
        row = await self.table.get(key)
        if row is None or until_of(row) <= (self._until(0.0) if at is None else at):
            return None
        try:
            return decode(row)
        except InvalidData as error:
            # It is written anew by the next upload.
            self._count_corrupt(key, error)
            return None

    def _count_corrupt(self, key: bytes, error: InvalidData) -> None:
        self.corrupt += 1
        _log.error("upload.corrupt", key=key.hex(), reason=error)

    def _until(self, seconds: float) -> int:
        return int((self._now() + seconds) * 1000)
