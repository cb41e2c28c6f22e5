"""Nix's base 32: one little-endian number, its most significant digit first.

Digit n is bits 5n to 5n+4 of the number; `e`, `o`, `t` and `u` are not in the alphabet.
"""

from __future__ import annotations

from tvixstore.errors import InvalidData

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
_VALUES = {digit: value for value, digit in enumerate(ALPHABET)}


def digits_for(length: int) -> int:
    """How many digits `length` bytes take."""
    return (length * 8 + 4) // 5


def encode(data: bytes) -> str:
    number = int.from_bytes(data, "little")
    return "".join(
        ALPHABET[number >> 5 * position & 31] for position in reversed(range(digits_for(len(data))))
    )


def decode(text: str) -> bytes:
    """The bytes behind `text`; raises `InvalidData` on other digits and on spare bits set."""
    length = len(text) * 5 // 8
    if digits_for(length) != len(text):
        raise InvalidData(f"{text!r} has {len(text)} digits, which is no whole number of bytes")
    number = 0
    for digit in text:
        value = _VALUES.get(digit)
        if value is None:
            raise InvalidData(f"{text!r} has {digit!r}, which is not a nixbase32 digit")
        number = number << 5 | value
    try:
        return number.to_bytes(length, "little")
    except OverflowError:
        raise InvalidData(f"{text!r} has spare bits set in its first digit") from None
