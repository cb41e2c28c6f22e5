"""NARs, and what they are compressed with."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Iterator
from typing import Any

import brotli
import lz4.frame
import zstandard

from tests.fuzz.target import Target
from tests.nar.vectors import INVALID, VALID
from tvixstore.compression import MAX_PIECE, decoder
from tvixstore.errors import CorruptData, InvalidData
from tvixstore.nar import writer
from tvixstore.nar.reader import (
    CloseDirectory,
    Contents,
    Event,
    NarReader,
    OpenDirectory,
    Regular,
    Symlink,
)

# Of what a few bytes expand to, so much is looked at; of that, so much once more, in slivers.
_ENOUGH = 5 << 19
_AGAIN = 1 << 16
_LZMA = 132 << 20


def _slivers(data: bytes) -> Iterator[bytes]:
    """`data` in pieces of 1 to 13 bytes, the same ones each time."""
    start, length = 0, 1
    while start < len(data):
        yield data[start : start + length]
        start, length = start + length, length * 5 % 13 + 1


def _read(pieces: Iterator[bytes]) -> list[Event]:
    reader = NarReader()
    events: list[Event] = []
    for piece in pieces:
        reader.feed(piece)
        events += reader.events()
    reader.finish()
    return events


def _write(events: list[Event]) -> bytes:
    """The NAR that `events` tell of."""
    parts: list[bytes] = []
    names: list[bytes] = []
    # What closes the file that is open, and how many bytes of it are still to come.
    closing, left = b"", 0
    for event in events:
        match event:
            case OpenDirectory(name):
                parts.append(writer.open_directory(name))
                names.append(name)
            case CloseDirectory():
                parts.append(writer.close_directory(names.pop()))
            case Symlink(name, target):
                parts.append(writer.symlink(name, target))
            case Regular(name, size, executable, offset, contents):
                parts.append(writer.open_regular(name, size, executable))
                assert offset == sum(map(len, parts))
                closing, left = writer.close_regular(name, size), size - len(contents)
                parts.append(contents)
            case Contents(data):
                assert data
                left -= len(data)
                parts.append(data)
        if not left:
            parts.append(closing)
            closing = b""
    return b"".join(parts)


def _nar_law(data: bytes, events: list[Event]) -> None:
    assert _write(events) == data
    assert _write(_read(_slivers(data))) == data


_COMPRESSIONS = ("xz", "lzma", "zstd", "bzip2", "gzip", "br", "lz4")
_SAMPLE = VALID[0].nar + bytes(3000)


def _compressed() -> Iterator[bytes]:
    """Each compression's number, and something compressed; the last ones are bombs."""
    for sample in (_SAMPLE, bytes(_ENOUGH)):
        packed = (
            lzma.compress(sample),
            lzma.compress(sample, lzma.FORMAT_ALONE),
            zstandard.ZstdCompressor(write_checksum=True).compress(sample),
            bz2.compress(sample),
            gzip.compress(sample, mtime=0),
            brotli.compress(sample, quality=5),
            lz4.frame.compress(sample, content_checksum=True),
        )
        for number, each in enumerate(packed):
            if len(each) < 4000:
                yield bytes([number]) + each
                yield bytes([number]) + each * 2


def _unpack(name: str, pieces: Iterator[bytes]) -> bytes:
    undo = decoder(name)
    unpacked = bytearray()
    for piece in pieces:
        for part in undo.feed(piece):
            assert 0 < len(part) <= MAX_PIECE
            unpacked += part
            if len(unpacked) > _ENOUGH:
                return bytes(unpacked[:_ENOUGH])
    undo.finish()
    return bytes(unpacked)


def _decompress(data: bytes) -> bytes:
    name = _COMPRESSIONS[data[0] % len(_COMPRESSIONS)] if data else "xz"
    return _unpack(name, iter([data[1:]]))


def _decompress_law(data: bytes, unpacked: bytes) -> None:
    name = _COMPRESSIONS[data[0] % len(_COMPRESSIONS)]
    if len(unpacked) <= _AGAIN:
        assert _unpack(name, _slivers(data[1:])) == unpacked


ARCHIVES: dict[str, Target[Any]] = {
    "nar": Target(
        lambda data: _read(iter([data])),
        [vector.nar for vector in VALID if len(vector.nar) < 20_000]
        + [nar for _, nar in INVALID if len(nar) < 20_000],
        _nar_law,
        (InvalidData,),
        words=(
            writer.ENTRY,
            writer.NODE,
            writer.REGULAR,
            writer.EXECUTABLE,
            writer.CLOSE,
            bytes(8),
        ),
    ),
    "decompress": Target(
        _decompress,
        list(_compressed()),
        _decompress_law,
        (CorruptData,),
        memory=_LZMA,
    ),
}
