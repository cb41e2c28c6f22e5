"""What upstreams said of narinfos, kept on disk: found ones, and absent ones, for their TTLs.

Two rows an answer, written together: `k<upstream><path hash>` holds the answer, and
`t<expiry><upstream><path hash>` lists it by the time it expires, so that the table is swept and
bounded a page at a time. Rows of the index may outlive their answer; they go in their time.
Expiry is by the wall clock, since it has to hold across restarts.
"""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from tvixstore.errors import InvalidData, StoreError
from tvixstore.kv import Change, KeyValue
from tvixstore.log import Logger
from tvixstore.nix.store_path import HASH_BYTES
from tvixstore.policy.tracing import here, note, spell
from tvixstore.policy.write_behind import WriteBehind

_log = Logger(__name__)

MAX_UPSTREAM_BYTES = 16
MAX_TEXT_BYTES = 64 << 10

_ANSWER, _INDEX = b"k", b"t"
# When it was remembered, when it expires (both Unix milliseconds), CRC-32 of what follows: a byte
# that says absent or found, and the text.
_HEADER: Final = struct.Struct(">QQL")
_ABSENT, _FOUND = b"-", b"+"
_TIME: Final = struct.Struct(">Q")
_INDEX_KEY_AT: Final = len(_INDEX) + _TIME.size

_DELAY = 0.25
_BATCH = 500
# Rows of the index read at a time.
_PAGE = 500
# Milliseconds that the clock may have been set back without doubt about what was remembered since.
_CLOCK_SLACK = 60_000


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


# The upstream said that it does not have the path; `None` means that nothing is remembered.
ABSENT: Final = Absent.ABSENT

Said: TypeAlias = str | Literal[Absent.ABSENT]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was said, and from when until when (Unix milliseconds) it counts."""

    said: Said
    since: int
    until: int

    def counts(self, now: int) -> bool:
        # If the clock was set back, nobody knows how old the answer is.
        return self.since - _CLOCK_SLACK <= now < self.until

    def encode(self) -> bytes:
        body = _ABSENT if self.said is ABSENT else _FOUND + self.said.encode()
        return _HEADER.pack(self.since, self.until, zlib.crc32(body)) + body

    @classmethod
    def decode(cls, row: bytes) -> _Answer:
        """Raises `InvalidData` on anything that `encode` did not write."""
        if len(row) <= _HEADER.size:
            raise InvalidData(f"row of {len(row)} bytes is too short")
        since, until, checksum = _HEADER.unpack_from(row)
        body = row[_HEADER.size :]
        if zlib.crc32(body) != checksum:
            raise InvalidData("row does not have the checksum that it says")
        if body == _ABSENT:
            return cls(ABSENT, since, until)
        if not body.startswith(_FOUND):
            raise InvalidData(f"row is of the unknown kind {body[:1]!r}")
        try:
            return cls(body[len(_FOUND) :].decode(), since, until)
        except UnicodeDecodeError:
            raise InvalidData("text is not UTF-8") from None


# Waits to be written in place of an answer that is to go.
_FORGOTTEN: Final = _Answer(ABSENT, 0, 0)


def check_row(key: bytes, row: bytes) -> None:
    """Raises `InvalidData` for a row of either kind that `RememberedAnswers` did not write."""
    if key.startswith(_ANSWER):
        _Answer.decode(row)
    elif not key.startswith(_INDEX) or len(key) <= _INDEX_KEY_AT or row:
        raise InvalidData("the row is neither an answer nor one of their index")


class RememberedAnswers:
    """Answers by upstream (its name, up to 16 bytes) and path hash, at most `capacity` in `table`.

    Remembering is cheap and at once visible; the table is written within a quarter of a second, and
    by `aclose`. A table that fails costs what was remembered, and never a lookup.
    """

    def __init__(
        self,
        table: KeyValue,
        *,
        capacity: int = 100_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._capacity = capacity
        self._now = now
        # Rows of the index, counted at the first write.
        self._rows: int | None = None
        self._writes: WriteBehind[bytes, _Answer] = WriteBehind(
            "remembered", self._write, delay=_DELAY, batch=_BATCH
        )
        # Who changes the table; and how often absences were forgotten on demand.
        self._changing = asyncio.Lock()
        self._forgettings = 0
        # Rows that were not ours to read, and reads of the table that failed.
        self.corrupt = 0
        self.failed_reads = 0

    @property
    def dropped(self) -> int:
        """Answers that were not written, because the table failed."""
        return self._writes.dropped

    async def get(self, upstream: bytes, path_hash: bytes) -> Said | None:
        """The narinfo it sent, or `ABSENT`; `None` if nothing is remembered, or not any longer."""
        key = _key(upstream, path_hash)
        answer = self._writes.get(key)
        if answer is None:
            answer = await self._read(key)
        if answer is None or not answer.counts(now := self._millis()):
            return None
        if here() is not None:
            _tell(answer, (answer.until - now) / 1000)
        return answer.said

    def remember(self, upstream: bytes, path_hash: bytes, text: str | None, ttl: float) -> None:
        """Keeps the narinfo `text`, or its absence (`None`), for `ttl` seconds."""
        if text is not None and len(text.encode()) > MAX_TEXT_BYTES:
            # Not kept, and what was kept before is out of date.
            self.forget(upstream, path_hash)
            return
        now = self._millis()
        said = ABSENT if text is None else text
        self._writes.put(_key(upstream, path_hash), _Answer(said, now, now + int(ttl * 1000)))

    def forget(self, upstream: bytes, path_hash: bytes) -> None:
        """Drops what is remembered, if anything is."""
        self._writes.put(_key(upstream, path_hash), _FORGOTTEN)

    def moment(self) -> int:
        """Before an upstream is asked: what to `remember_absent` its answer with."""
        return self._forgettings

    def remember_absent(self, upstream: bytes, path_hash: bytes, ttl: float, moment: int) -> None:
        """Keeps that it was absent when asked for after `moment`, unless absences were forgotten
        since: it may have come just before that."""
        if moment == self._forgettings:
            self.remember(upstream, path_hash, None, ttl)
        else:
            self.forget(upstream, path_hash)

    async def forget_absences(self, path_hashes: Collection[bytes] = ()) -> int:
        """Drops all absences, or those of some paths; how many there were.

        Raises `StoreError` if the table cannot be changed.
        """
        self._forgettings += 1
        wanted = frozenset(path_hashes)
        dropped = set()
        for key, answer in self._writes.waiting():
            if _is_absence(answer, key, wanted):
                self._writes.put(key, _FORGOTTEN)
                if answer.counts(self._millis()):
                    dropped.add(key)
        after: bytes | None = _ANSWER
        while after is not None:
            # Between two pages others get their turn.
            async with self._changing:
                after, gone = await self._drop_absences(after, wanted)
            dropped.update(gone)
        return len(dropped)

    async def _drop_absences(
        self, after: bytes, wanted: Collection[bytes]
    ) -> tuple[bytes | None, list[bytes]]:
        """A page of it: where to go on, and the keys of those that counted."""
        page = await self._table.scan(_ANSWER, after, _PAGE)
        now = self._millis()
        changes: list[Change] = []
        gone = []
        for row_key, row in page:
            key, answer = row_key[len(_ANSWER) :], _decode_or_none(row)
            if answer is not None and _is_absence(answer, key, wanted):
                # Its row of the index goes in its time, as it does for all that is forgotten.
                changes.append((row_key, None))
                if answer.counts(now):
                    gone.append(key)
        if changes:
            await self._table.apply(changes)
        return (page[-1][0] if page else None), gone

    async def aclose(self) -> None:
        """Writes what waits."""
        await self._writes.aclose()

    def _millis(self) -> int:
        return int(self._now() * 1000)

    async def _read(self, key: bytes) -> _Answer | None:
        try:
            row = await self._table.get(_ANSWER + key)
        except StoreError as error:
            self.failed_reads += 1
            _log.warning("remembered.unreadable", reason=error)
            return None
        # Said while the table was read, so newer than the row.
        newer = self._writes.get(key)
        if newer is not None or row is None:
            return newer
        try:
            return _Answer.decode(row)
        except InvalidData as error:
            self.corrupt += 1
            _log.warning("remembered.corrupt", key=key.hex(), reason=error)
            self._writes.put(key, _FORGOTTEN)
            return None

    async def _write(self, answers: Mapping[bytes, _Answer]) -> None:
        async with self._changing:
            await self._write_now(answers)

    async def _write_now(self, answers: Mapping[bytes, _Answer]) -> None:
        if self._rows is None:
            self._rows = await self._count_rows()
        coming = sum(answer is not _FORGOTTEN for answer in answers.values())
        self._rows = await self._make_room(self._rows, coming)
        rows = await self._table.get_many([_ANSWER + key for key in answers])
        changes: list[Change] = []
        added = 0
        for (key, answer), row in zip(answers.items(), rows, strict=True):
            old = _decode_or_none(row)
            # An answer is never without its row of the index, whatever becomes of the batch.
            if answer is not _FORGOTTEN:
                changes += [(_index(answer, key), b""), (_ANSWER + key, answer.encode())]
                added += 1
            elif row is not None:
                changes.append((_ANSWER + key, None))
            if old is not None:
                added -= 1
                if old.until != answer.until:
                    changes.append((_index(old, key), None))
        await self._apply(changes)
        self._rows += added
        # A batch may outnumber a small capacity by itself.
        if self._rows > self._capacity:
            self._rows = await self._make_room(self._rows, 0)

    async def _make_room(self, rows: int, coming: int) -> int:
        """Drops what expired, and what expires first until `coming` more fit; the rows left."""
        while page := await self._table.scan(_INDEX, limit=_PAGE):
            now = self._millis()
            excess = rows + coming - self._capacity
            gone = [
                row
                for position, (row, _) in enumerate(page)
                if position < excess or _until(row) <= now
            ]
            if gone:
                keys = [_ANSWER + row[_INDEX_KEY_AT:] for row in gone]
                changes: list[Change] = []
                for index, key, row in zip(
                    gone, keys, await self._table.get_many(keys), strict=True
                ):
                    answer = _decode_or_none(row)
                    # A later answer has a row of the index of its own.
                    if row is not None and (answer is None or answer.until == _until(index)):
                        changes.append((key, None))
                    changes.append((index, None))
                await self._apply(changes)
                rows -= len(gone)
            if len(gone) < len(page):
                break
        return rows

    async def _apply(self, changes: list[Change]) -> None:
        try:
            await self._table.apply(changes)
        except BaseException:
            if not self._table.atomic:
                # Some of them may have been made.
                self._rows = None
            raise

    async def _count_rows(self) -> int:
        count = 0
        after: bytes | None = None
        while page := await self._table.scan(_INDEX, after, _PAGE):
            count += len(page)
            after = page[-1][0]
        return count


def _is_absence(answer: _Answer, key: bytes, wanted: Collection[bytes]) -> bool:
    """Whether it says that a path is absent, one of those `wanted`, or any if none is."""
    if answer.said is not ABSENT or answer is _FORGOTTEN:
        return False
    return not wanted or key[-HASH_BYTES:] in wanted


def _tell(answer: _Answer, left: float) -> None:
    if answer.said is ABSENT:
        note("memory.absent", f"remembered as absent for {spell(left)} more", left)
    else:
        note("memory.present", f"its narinfo is remembered for {spell(left)} more", left)


def _key(upstream: bytes, path_hash: bytes) -> bytes:
    if len(upstream) > MAX_UPSTREAM_BYTES:
        raise InvalidData(f"upstream {upstream!r} is longer than {MAX_UPSTREAM_BYTES} bytes")
    # The hash has a fixed length, so that no two pairs share a key.
    if len(path_hash) != HASH_BYTES:
        raise InvalidData(f"path hash is {len(path_hash)} bytes long, expected {HASH_BYTES}")
    return upstream + path_hash


def _index(answer: _Answer, key: bytes) -> bytes:
    return _INDEX + _TIME.pack(answer.until) + key


def _until(index: bytes) -> int:
    """When the answer of that row of the index expires; long ago if the row is garbage."""
    at = len(_INDEX)
    return _TIME.unpack_from(index, at)[0] if len(index) > _INDEX_KEY_AT else 0


def _decode_or_none(row: bytes | None) -> _Answer | None:
    try:
        return None if row is None else _Answer.decode(row)
    except InvalidData:
        # It is on its way out, or overwritten.
        return None
