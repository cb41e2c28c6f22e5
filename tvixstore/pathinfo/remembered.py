"""What upstreams said of narinfos, kept on disk: found ones, and absent ones, for their TTLs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from tvixstore.errors import InvalidData, StoreError
from tvixstore.kv import Change, KeyValue
from tvixstore.log import Logger
from tvixstore.nix.store_path import HASH_BYTES
from tvixstore.pathinfo.answer_rows import (
    ABSENT,
    ANSWER,
    FORGOTTEN,
    INDEX,
    INDEX_KEY_AT,
    Answer,
    Said,
    answer_key,
    decode_or_none,
    index_of,
    until_of,
)
from tvixstore.policy.tracing import here, note, spell
from tvixstore.policy.write_behind import WriteBehind

_log = Logger(__name__)

MAX_TEXT_BYTES = 64 << 10

_DELAY = 0.25
_BATCH = 500
# Rows of the index read at a time.
_PAGE = 500


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
        self._writes: WriteBehind[bytes, Answer] = WriteBehind(
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
        key = answer_key(upstream, path_hash)
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
        self._writes.put(answer_key(upstream, path_hash), Answer(said, now, now + int(ttl * 1000)))

    def forget(self, upstream: bytes, path_hash: bytes) -> None:
        """Drops what is remembered, if anything is."""
        self._writes.put(answer_key(upstream, path_hash), FORGOTTEN)

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
                self._writes.put(key, FORGOTTEN)
                if answer.counts(self._millis()):
                    dropped.add(key)
        after: bytes | None = ANSWER
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
        page = await self._table.scan(ANSWER, after, _PAGE)
        now = self._millis()
        changes: list[Change] = []
        gone = []
        for row_key, row in page:
            key, answer = row_key[len(ANSWER) :], decode_or_none(row)
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

    async def _read(self, key: bytes) -> Answer | None:
        try:
            row = await self._table.get(ANSWER + key)
        except StoreError as error:
            self.failed_reads += 1
            _log.warning("remembered.unreadable", reason=error)
            return None
        # Said while the table was read, so newer than the row.
        newer = self._writes.get(key)
        if newer is not None or row is None:
            return newer
        try:
            return Answer.decode(row)
        except InvalidData as error:
            self.corrupt += 1
            _log.warning("remembered.corrupt", key=key.hex(), reason=error)
            self._writes.put(key, FORGOTTEN)
            return None

    async def _write(self, answers: Mapping[bytes, Answer]) -> None:
        async with self._changing:
            await self._write_now(answers)

    async def _write_now(self, answers: Mapping[bytes, Answer]) -> None:
        if self._rows is None:
            self._rows = await self._count_rows()
        coming = sum(answer is not FORGOTTEN for answer in answers.values())
        self._rows = await self._make_room(self._rows, coming)
        rows = await self._table.get_many([ANSWER + key for key in answers])
        changes: list[Change] = []
        added = 0
        for (key, answer), row in zip(answers.items(), rows, strict=True):
            old = decode_or_none(row)
            # An answer is never without its row of the index, whatever becomes of the batch.
            if answer is not FORGOTTEN:
                changes += [(index_of(answer, key), b""), (ANSWER + key, answer.encode())]
                added += 1
            elif row is not None:
                changes.append((ANSWER + key, None))
            if old is not None:
                added -= 1
                if old.until != answer.until:
                    changes.append((index_of(old, key), None))
        await self._apply(changes)
        self._rows += added
        # A batch may outnumber a small capacity by itself.
        if self._rows > self._capacity:
            self._rows = await self._make_room(self._rows, 0)

    async def _make_room(self, rows: int, coming: int) -> int:
        """Drops what expired, and what expires first until `coming` more fit; the rows left."""
        while page := await self._table.scan(INDEX, limit=_PAGE):
            now = self._millis()
            excess = rows + coming - self._capacity
            gone = [
                row
                for position, (row, _) in enumerate(page)
                if position < excess or until_of(row) <= now
            ]
            if gone:
                keys = [ANSWER + row[INDEX_KEY_AT:] for row in gone]
                changes: list[Change] = []
                for index, key, row in zip(
                    gone, keys, await self._table.get_many(keys), strict=True
                ):
                    answer = decode_or_none(row)
                    # A later answer has a row of the index of its own.
                    if row is not None and (answer is None or answer.until == until_of(index)):
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
        while page := await self._table.scan(INDEX, after, _PAGE):
            count += len(page)
            after = page[-1][0]
        return count


def _is_absence(answer: Answer, key: bytes, wanted: Collection[bytes]) -> bool:
    """Whether it says that a path is absent, one of those `wanted`, or any if none is."""
    if answer.said is not ABSENT or answer is FORGOTTEN:
        return False
    return not wanted or key[-HASH_BYTES:] in wanted


def _tell(answer: Answer, left: float) -> None:
    if answer.said is ABSENT:
        note("memory.absent", f"remembered as absent for {spell(left)} more", left)
    else:
        note("memory.present", f"its narinfo is remembered for {spell(left)} more", left)
