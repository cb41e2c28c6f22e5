"""Nix's base 32: one little-endian number, its most significant digit first.

Digit n is bits 5n to 5n+4 of the number; `e`, `o`, `t` and `u` are not in the alphabet. Every
narinfo has dozens of these, so digits are translated to those of Python's own base 32 and of
RFC 4648, and the loops over them run in C.
"""

from __future__ import annotations

from base64 import b32encode

from tvixstore.errors import InvalidData

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"

_PYTHON = b"0123456789abcdefghijklmnopqrstuv"
_RFC4648 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_NIX = ALPHABET.encode()

# `int()` would take more than the 32 digits (signs, underscores, blanks, capitals), so anything
# else becomes a character that it refuses.
_TO_PYTHON = bytes.maketrans(_NIX, _PYTHON)
_TO_PYTHON = bytes(_TO_PYTHON[byte] if byte in _NIX else ord("!") for byte in range(256))
_FROM_RFC4648 = bytes.maketrans(_RFC4648, _NIX)


def digits_for(length: int) -> int:
    """How many digits `length` bytes take."""
    return (length * 8 + 4) // 5


def encode(data: bytes) -> str:
    length = len(data)
    # RFC 4648 reads from the left in groups of 5 bytes: zeros in front complete the first one.
    whole = bytes(-length % 5) + data[::-1]
    digits = b32encode(whole).translate(_FROM_RFC4648)
    return digits[len(digits) - digits_for(length) :].decode("ascii")


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
