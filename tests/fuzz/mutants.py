"""Valid bytes made wrong, as hypothesis draws it: a seed, and a few changes to it.

A change is a plain tuple, applied without any more choices, so that a failing mutant shrinks to few
and small ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.fuzz.target import Target


# Lengths and counts that announce more than there is.
_NUMBERS = [
    number.to_bytes(8, "little") for number in (2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 1 << 30)
] + [b"\xff\xff\xff\xff\x07", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x80\x00"]
_DECIMALS = [b"0", b"-1", b"18446744073709551616", b"9" * 400, b"1e9", b"\xd9\xa3"]
_BYTES = [b"\0", b"\n", b" ", b"\x7f", b"\x80", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\r\n"]
_LONGEST = 1 << 16

# What to do, where, to how much, with what.
Change = tuple[str, int, int, bytes]


def _place(data: bytearray, at: int) -> int:
    return at % (len(data) + 1)


def _flip(data: bytearray, at: int, length: int, word: bytes) -> None:
    if data:
        data[at % len(data)] ^= 1 << length % 8


def _insert(data: bytearray, at: int, length: int, word: bytes) -> None:
    place = _place(data, at)
    data[place:place] = word


def _overwrite(data: bytearray, at: int, length: int, word: bytes) -> None:
    place = _place(data, at)
    data[place : place + len(word)] = word


def _delete(data: bytearray, at: int, length: int, word: bytes) -> None:
    place = _place(data, at)
    del data[place : place + length % 64 + 1]


def _truncate(data: bytearray, at: int, length: int, word: bytes) -> None:
    del data[_place(data, at) :]


def _repeat(data: bytearray, at: int, length: int, word: bytes) -> None:
    place = _place(data, at)
    part = data[place : place + length % 256 + 1]
    data[place:place] = part * (length % 8 + 1)


def _move(data: bytearray, at: int, length: int, word: bytes) -> None:
    place = _place(data, at)
    part = data[place : place + length % 256 + 1]
    del data[place : place + len(part)]
    _insert(data, at * 7 + length, 0, bytes(part))


def _number(data: bytearray, at: int, length: int, word: bytes) -> None:
    """Another number where one is written in digits."""
    found = list(re.finditer(rb"\d+", data))
    if found:
        start, end = found[at % len(found)].span()
        data[start:end] = _DECIMALS[length % len(_DECIMALS)]


_CHANGES: dict[str, Callable[[bytearray, int, int, bytes], None]] = {
    "flip": _flip,
    "insert": _insert,
    "overwrite": _overwrite,
    "delete": _delete,
    "truncate": _truncate,
    "repeat": _repeat,
    "move": _move,
    "number": _number,
}


def changed(seed: bytes, changes: list[Change]) -> bytes:
    data = bytearray(seed)
    for name, at, length, word in changes:
        _CHANGES[name](data, at, length, word)
        # Repeating what was repeated gets nowhere.
        del data[_LONGEST:]
    return bytes(data)


def mutants(target: Target[Any]) -> st.SearchStrategy[bytes]:
    """Seeds of `target` with up to four changes, and now and then noise."""
    parts = st.builds(
        lambda seed, at, length: seed[at : at + length],
        st.sampled_from(target.seeds),
        st.integers(0, 500),
        st.integers(1, 300),
    )
    words = st.one_of(
        st.sampled_from([*target.words, *_NUMBERS, *_BYTES]), st.binary(max_size=9), parts
    )
    change = st.tuples(
        st.sampled_from(sorted(_CHANGES)), st.integers(0, 5000), st.integers(0, 300), words
    )
    mutant = st.builds(changed, st.sampled_from(target.seeds), st.lists(change, max_size=4))
    return st.one_of(mutant, mutant, mutant, st.binary(max_size=200))
