"""The rows that answers of upstreams are remembered in.

Two rows an answer, written together: `k<upstream><path hash>` holds the answer, and
`t<expiry><upstream><path hash>` lists it by the time it expires, so that the table is swept and
bounded a page at a time. Rows of the index may outlive their answer; they go in their time.
Expiry is by the wall clock, since it has to hold across restarts.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from tvixstore.errors import InvalidData
from tvixstore.nix.store_path import HASH_BYTES

MAX_UPSTREAM_BYTES = 16

ANSWER, INDEX = b"k", b"t"
# When it was remembered, when it expires (both Unix milliseconds), CRC-32 of what follows: a byte
# that says absent or found, and the text.
_HEADER: Final = struct.Struct(">QQL")
_ABSENT, _FOUND = b"-", b"+"
_TIME: Final = struct.Struct(">Q")
INDEX_KEY_AT: Final = len(INDEX) + _TIME.size

# Milliseconds that the clock may have been set back without doubt about what was remembered since.
_CLOCK_SLACK = 60_000


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"


# The upstream said that it does not have the path; `None` means that nothing is remembered.
ABSENT: Final = Absent.ABSENT

Said: TypeAlias = str | Literal[Absent.ABSENT]


@dataclass(frozen=True, slots=True)
class Answer:
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
    def decode(cls, row: bytes) -> Answer:
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
FORGOTTEN: Final = Answer(ABSENT, 0, 0)


def check_row(key: bytes, row: bytes) -> None:
    """Raises `InvalidData` for a row of either kind that `RememberedAnswers` did not write."""
    if key.startswith(ANSWER):
        Answer.decode(row)
    elif not key.startswith(INDEX) or len(key) <= INDEX_KEY_AT or row:
        raise InvalidData("the row is neither an answer nor one of their index")


def answer_key(upstream: bytes, path_hash: bytes) -> bytes:
    if len(upstream) > MAX_UPSTREAM_BYTES:
        raise InvalidData(f"upstream {upstream!r} is longer than {MAX_UPSTREAM_BYTES} bytes")
    # The hash has a fixed length, so that no two pairs share a key.
    if len(path_hash) != HASH_BYTES:
        raise InvalidData(f"path hash is {len(path_hash)} bytes long, expected {HASH_BYTES}")
    return upstream + path_hash


def index_of(answer: Answer, key: bytes) -> bytes:
    return INDEX + _TIME.pack(answer.until) + key


def until_of(index: bytes) -> int:
    """When the answer of that row of the index expires; long ago if the row is garbage."""
    at = len(INDEX)
    return _TIME.unpack_from(index, at)[0] if len(index) > INDEX_KEY_AT else 0


def decode_or_none(row: bytes | None) -> Answer | None:
    try:
        return None if row is None else Answer.decode(row)
    except InvalidData:
        # It is on its way out, or overwritten.
        return None
