"""Nix's base 32: one little-endian number, its most significant digit first.

Digit n is bits 5n to 5n+4 of the number; `e`, `o`, `t` and `u` are not in the alphabet. Every
narinfo has dozens of these, so they are read by `int()`, whose base 32 has other digits, and
written two digits at a time.
"""

from __future__ import annotations

from functools import lru_cache

from tvixstore.errors import InvalidData

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"

_PYTHON = b"0123456789abcdefghijklmnopqrstuv"
_NIX = ALPHABET.encode()

# `int()` would take more than the 32 digits (signs, underscores, blanks, capitals), so anything
# else becomes a character that it refuses.
_TO_PYTHON = bytes.maketrans(_NIX, _PYTHON)
_TO_PYTHON = bytes(_TO_PYTHON[byte] if byte in _NIX else ord("!") for byte in range(256))
_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]


def digits_for(length: int) -> int:
    """How many digits `length` bytes take."""
    return (length * 8 + 4) // 5


# A path's hash is written out for its URL, its narinfo, its fingerprint, its log lines.
@lru_cache(maxsize=1 << 13)
def encode(data: bytes) -> str:
    number = int.from_bytes(data, "little")
    count = digits_for(len(data))
    pairs = [_PAIRS[number >> shift & 1023] for shift in range((count - 1) // 2 * 10, -1, -10)]
    return "".join(pairs)[len(pairs) * 2 - count :]


def decode(text: str) -> bytes:
    """The bytes behind `text`; raises `InvalidData` on other digits and on spare bits set."""
    length = len(text) * 5 // 8
    if digits_for(length) != len(text):
        raise InvalidData(f"{text!r} has {len(text)} digits, which is no whole number of bytes")
    if not text:
        return b""
    try:
        return int(text.encode("ascii").translate(_TO_PYTHON), 32).to_bytes(length, "little")
    except OverflowError:
        raise InvalidData(f"{text!r} has spare bits set in its first digit") from None
    except ValueError:
        odd = next(digit for digit in text if digit not in ALPHABET)
        raise InvalidData(f"{text!r} has {odd!r}, which is not a nixbase32 digit") from None
