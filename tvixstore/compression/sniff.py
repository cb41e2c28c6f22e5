"""Which compression a NAR came in, by its first bytes.

A file's name says little: Nix calls what it compressed with gzip or lzma `.nar` too, and only a
narinfo that comes later names the compression.
"""

from __future__ import annotations

import struct
from typing import Final

from tvixstore.errors import InvalidData

# Bytes at the start of a file that tell.
SNIFFED: Final = 24

_NAR: Final = b"\x0d\0\0\0\0\0\0\0nix-archive-1"
_MAGICS: Final = (
    (_NAR, "none"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\x1f\x8b", "gzip"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
# What Nix can make, and we cannot read.
_UNREADABLE: Final = ((b"LZIP", "lzip"), (b"\x1f\x9d", "compress"))
_READABLE: Final = "none, xz, zstd, bzip2, gzip, lzma, lz4 or br (named .br)"
_BROTLI: Final = ".br"
# Properties, size of the dictionary, size of the contents.
_LZMA: Final = struct.Struct("<BLQ")
_LZMA_PROPERTIES: Final = 225
_UNKNOWN: Final = 2**64 - 1


def sniff(head: bytes, name: str) -> str:
    """What a narinfo calls the compression of a NAR that begins with `head`, its first `SNIFFED`
    bytes, and is called `name`. Raises `InvalidData` for what is none that can be undone here.
    """
    # There is nothing in a brotli stream to know it by.
    if name.endswith(_BROTLI):
        return "br"
    for magic, compression in _MAGICS:
        if head.startswith(magic):
            return compression
    for magic, compression in _UNREADABLE:
        if head.startswith(magic):
            raise InvalidData(f"NARs compressed with {compression} are not taken: use {_READABLE}")
    if _is_lzma(head):
        return "lzma"
    raise InvalidData(
        f"what begins with {head[:8].hex() or 'nothing'} is no NAR, nor a compressed one: "
        f"use {_READABLE}"
    )


def _is_lzma(head: bytes) -> bool:
    """lzma has no magic either, but few headers make sense: as `file` and liblzma tell them."""
    if len(head) < _LZMA.size:
        return False
    properties: int
    dictionary: int
    size: int
    properties, dictionary, size = _LZMA.unpack_from(head)
    power = dictionary & (dictionary - 1) == 0
    power_and_half = dictionary % 3 == 0 and (dictionary // 3) & (dictionary // 3 - 1) == 0
    return (
        properties < _LZMA_PROPERTIES
        and dictionary > 0
        and (power or power_and_half)
        and (size == _UNKNOWN or size < 1 << 38)
    )
