"""Faults of what a server has, which it then serves as well as can be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.matrix import Fault
    from tests.support.caches import MadePath


def _truncated(path: MadePath, body: bytes, cut: int) -> bytes:
    return body[:cut]


def _corrupted(path: MadePath, body: bytes, cut: int) -> bytes:
    if body == path.text:
        # One digit of the hash is another one: all of it can still be read.
        digit = body.index(b"NarHash: sha256:") + 30
        return body[:digit] + (b"0" if body[digit] != ord("0") else b"1") + body[digit + 1 :]
    return body[:cut] + bytes([body[cut] ^ 0xFF]) + body[cut + 1 :]


def _signed_by_nobody(path: MadePath, body: bytes, cut: int) -> bytes:
    (signature,) = path.narinfo.signatures
    wrong = replace(signature, data=bytes(64))
    return str(replace(path.narinfo, signatures=(wrong,))).encode()


# What becomes of a body, with the byte at which it goes wrong.
SPOILT: dict[Fault | None, Callable[[MadePath, bytes, int], bytes]] = {
    "truncation": _truncated,
    "corruption": _corrupted,
    "wrong signature": _signed_by_nobody,
}
