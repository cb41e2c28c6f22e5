"""Paths that are to stay: pinned, with everything they refer to, whatever room is wanted.

A row of the table `pins` is a path's hash, and a record: a version, a checksum, since when (Unix
seconds, 64 bits, big endian), the path's base name, a zero byte, and a comment. A path whose record
is damaged is pinned all the same: what counts is that the row is there.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from tvixstore.errors import InvalidData
from tvixstore.kv import KeyValue
from tvixstore.log import Logger
from tvixstore.nix import StorePath, nixbase32

_log = Logger(__name__)

MAX_COMMENT_BYTES: Final = 4096

_VERSION: Final = b"\x01"
_CHECKSUM_BYTES: Final = 8
_SINCE_AT: Final = len(_VERSION) + _CHECKSUM_BYTES
_SINCE_BYTES: Final = 8
# Rows read at a time.
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned path: since when (Unix seconds), and what whoever pinned it had to say."""

    store_path: StorePath
    since: int
    comment: str = ""

    def __post_init__(self) -> None:
        if len(self.comment.encode()) > MAX_COMMENT_BYTES or not self.comment.isprintable():
            raise InvalidData(
                f"a pin's comment is one line of at most {MAX_COMMENT_BYTES} bytes, "
                f"not {self.comment[:100]!r}"
            )


class Pins:
    """The pinned paths in `table`, by their hashes. Eviction asks `hashes` what it has to leave."""

    def __init__(self, table: KeyValue, now: Callable[[], float] = time.time) -> None:
        self._table = table
        self._now = now

    async def add(self, store_path: StorePath, comment: str | None = None) -> Pin:
        """Pins it, durably. A path that is pinned keeps its `since`, and its comment if no other is
        given."""
        before = await self.get(store_path.hash)
        if before is None:
            before = Pin(store_path, int(self._now()))
        pin = Pin(store_path, before.since, before.comment if comment is None else comment)
        await self._table.apply([(store_path.hash, encode_pin(pin))])
        return pin

    async def remove(self, path_hash: bytes) -> bool:
        """Unpins it, durably; `False` if it was not pinned."""
        if await self._table.get(path_hash) is None:
            return False
        await self._table.apply([(path_hash, None)])
        return True

    async def has(self, path_hash: bytes) -> bool:
        return await self._table.get(path_hash) is not None

    async def get(self, path_hash: bytes) -> Pin | None:
        """`None` if it is not pinned, or nobody can read any more what was said of it."""
        record = await self._table.get(path_hash)
        return None if record is None else self._decode(path_hash, record)

    async def list(self) -> AsyncGenerator[Pin, None]:
        """All pins whose records can be read, by hash."""
        after: bytes | None = None
        while rows := await self._table.scan(after=after, limit=_PAGE):
            for path_hash, record in rows:
                if (pin := self._decode(path_hash, record)) is not None:
                    yield pin
            after = rows[-1][0]

    async def hashes(self) -> AsyncGenerator[bytes, None]:
        """The hashes of all pinned paths, in order."""
        after: bytes | None = None
        while rows := await self._table.scan(after=after, limit=_PAGE):
            for path_hash, _ in rows:
                yield path_hash
            after = rows[-1][0]

    def _decode(self, path_hash: bytes, record: bytes) -> Pin | None:
        try:
            return decode_pin(path_hash, record)
        except InvalidData as error:
            _log.error("pin.corrupt", key=nixbase32.encode(path_hash), reason=error)
            return None


def encode_pin(pin: Pin) -> bytes:
    body = b"".join(
        (
            pin.since.to_bytes(_SINCE_BYTES, "big"),
            pin.store_path.base_name.encode(),
            b"\0",
            pin.comment.encode(),
        )
    )
    return _VERSION + _checksum(body) + body


def decode_pin(path_hash: bytes, record: bytes) -> Pin:
    """Raises `InvalidData` on anything that `encode_pin` did not write for that path."""
    body = record[_SINCE_AT:]
    if record[:_SINCE_AT] != _VERSION + _checksum(body):
        raise InvalidData("the record is of another version, or does not have its checksum")
    name, _, comment = body[_SINCE_BYTES:].partition(b"\0")
    try:
        pin = Pin(
            StorePath.from_base_name(name.decode()),
            int.from_bytes(body[:_SINCE_BYTES], "big"),
            comment.decode(),
        )
    except UnicodeDecodeError:
        raise InvalidData("the record is not UTF-8") from None
    if pin.store_path.hash != path_hash:
        raise InvalidData(f"the record is of another path, {pin.store_path}")
    return pin


def _checksum(body: bytes) -> bytes:
    return blake3(body).digest(_CHECKSUM_BYTES)
