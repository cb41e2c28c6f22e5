"""Every compression: whole, byte by byte and in slivers; cut off, with garbage, as a bomb."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import brotli
import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tvixstore.compression import MAX_PIECE, decoder
from tvixstore.errors import CorruptData, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 1 << 20

# Half of it compresses, half of it does not, and it is longer than a zstd block.
SAMPLE = b"nix-archive-1" * 10_000 + random.Random(1).randbytes(150_000)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": zstd,
    "bzip2": bz2.compress,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "br": lambda data: brotli.compress(data, quality=5),
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
}
CONCATENATE = ["xz", "zstd", "bzip2", "gzip", "lz4"]
COMPRESSED = [name for name in COMPRESS if name != "none"]


def whole(data: bytes) -> Iterable[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    return (data[start : start + 1] for start in range(len(data)))


def slivers(data: bytes) -> Iterable[bytes]:
    rng = random.Random(2)
    start = 0
    while start < len(data):
        length = rng.choice([0, 1, 7, 100, 5000, 70_000])
        yield data[start : start + length]
        start += length


def decode(compression: str, parts: Iterable[bytes], encodings: tuple[str, ...] = ()) -> bytes:
    undo = decoder(compression, encodings)
    decoded = b"".join(piece for part in parts for piece in undo.feed(part))
    undo.finish()
    return decoded


@pytest.mark.parametrize("fed", [whole, byte_by_byte, slivers])
@pytest.mark.parametrize("compression", COMPRESS)
def test_each_compression_is_undone(
    compression: str, fed: Callable[[bytes], Iterable[bytes]]
) -> None:
    assert decode(compression, fed(COMPRESS[compression](SAMPLE))) == SAMPLE


@pytest.mark.parametrize("compression", COMPRESS)
@given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=5))
def test_any_data_comes_back_however_it_is_cut(
    compression: str, data: bytes, cuts: list[int]
) -> None:
    packed = COMPRESS[compression](data)
    bounds = [0, *sorted(cuts), len(packed)]
    parts = [packed[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    assert decode(compression, parts) == data


@pytest.mark.parametrize("fed", [whole, byte_by_byte])
@pytest.mark.parametrize("compression", CONCATENATE)
def test_streams_one_after_the_other_are_one(
    compression: str, fed: Callable[[bytes], Iterable[bytes]]
) -> None:
    pack = COMPRESS[compression]
    packed = pack(b"one") + pack(b"") + pack(b"two")
    assert decode(compression, fed(packed)) == b"onetwo"


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("keep", [0, 1, 5, 0.5, -1])
def test_what_is_cut_off_is_corrupt(compression: str, keep: float) -> None:
    packed = COMPRESS[compression](SAMPLE)
    cut = int(len(packed) * keep) if isinstance(keep, float) else keep
    with pytest.raises(CorruptData, match=compression):
        decode(compression, [packed[:cut]])


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("garbage", [b"x", b"garbage behind it", b"\0\0\0"])
@pytest.mark.parametrize("compression", COMPRESSED)
def test_garbage_behind_the_end_is_corrupt(compression: str, garbage: bytes, apart: bool) -> None:
    packed = COMPRESS[compression](SAMPLE)
    with pytest.raises(CorruptData, match=compression):
        decode(compression, [packed, garbage] if apart else [packed + garbage])


@pytest.mark.parametrize("compression", COMPRESSED)
def test_what_is_not_of_that_format_is_corrupt(compression: str) -> None:
    with pytest.raises(CorruptData, match=compression):
        decode(compression, [b"<!DOCTYPE html><title>Please log in</title>" * 10])


@pytest.mark.parametrize("compression", ["xz", "zstd", "bzip2", "gzip", "lz4"])
def test_a_flipped_bit_is_corrupt(compression: str) -> None:
    packed = bytearray(COMPRESS[compression](SAMPLE))
    packed[len(packed) // 2] ^= 1
    with pytest.raises(CorruptData):
        decode(compression, [bytes(packed)])


@pytest.mark.parametrize("fed", [whole, byte_by_byte])
def test_xz_streams_may_be_padded(fed: Callable[[bytes], Iterable[bytes]]) -> None:
    packed = lzma.compress(b"one") + bytes(8) + lzma.compress(b"two") + bytes(4)
    assert decode("xz", fed(packed)) == b"onetwo"


@pytest.mark.parametrize("packed", [bytes(4) + lzma.compress(b"x"), lzma.compress(b"x") + bytes(5)])
def test_xz_padding_elsewhere_or_uneven_is_corrupt(packed: bytes) -> None:
    with pytest.raises(CorruptData, match="xz"):
        decode("xz", [packed])


@pytest.mark.parametrize("fed", [whole, byte_by_byte])
def test_skippable_zstd_frames_are_skipped(fed: Callable[[bytes], Iterable[bytes]]) -> None:
    skippable = struct.pack("<II", 0x184D2A53, 5) + b"aside"
    packed = skippable + zstd(b"one") + skippable + zstd(b"two") + skippable
    assert decode("zstd", fed(packed)) == b"onetwo"


def test_a_skippable_zstd_frame_that_is_cut_off_is_corrupt() -> None:
    with pytest.raises(CorruptData, match="zstd"):
        decode("zstd", [zstd(b"one"), struct.pack("<II", 0x184D2A53, 1 << 31) + b"aside"])


@pytest.mark.parametrize("compression", ["xz", "lzma"])
def test_a_dictionary_beyond_the_memory_limit_is_refused(compression: str) -> None:
    format = lzma.FORMAT_XZ if compression == "xz" else lzma.FORMAT_ALONE
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    if compression == "lzma":
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 30}]
    # Only the header matters, and a compressor for it would need 10 GiB itself.
    small = [{**filters[0], "dict_size": 1 << 16, "preset": 0}]
    packed = bytearray(lzma.compress(b"x" * 100, format, filters=small))
    if compression == "lzma":
        packed[1:5] = struct.pack("<I", 1 << 30)
    else:
        # Block header: size, flags, filter id, size of properties, dictionary size; then a CRC.
        packed[16] = 36
        packed[20:24] = struct.pack("<I", zlib.crc32(packed[12:20]))
    with pytest.raises(CorruptData, match="[Mm]emory"):
        decode(compression, [bytes(packed)])


def test_a_zstd_window_beyond_128_mib_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(CorruptData, match="memory"):
        decode("zstd", [packed])


def bomb(compression: str, size: int) -> bytes:
    """`size` zeros in as few bytes as the format can have them."""
    if compression == "zstd":
        # Runs of 128 KiB in four bytes each: denser than any compressor writes them.
        run = (128 << 10) << 3 | 1 << 1
        blocks = (run.to_bytes(3, "little") + b"\0") * (size // (128 << 10))
        return struct.pack("<IBB", 0xFD2FB528, 0, 0x38) + blocks + b"\1\0\0"
    if compression == "lz4":
        packed: bytes = lz4.frame.compress(bytes(size), block_size=lz4.frame.BLOCKSIZE_MAX4MB)
        return packed
    if compression == "xz":
        return lzma.compress(bytes(size), preset=0)
    if compression == "lzma":
        return lzma.compress(bytes(size), lzma.FORMAT_ALONE, preset=0)
    return COMPRESS[compression](bytes(size))


@pytest.mark.parametrize("compression", COMPRESSED)
def test_a_bomb_costs_no_more_memory_than_its_pieces(compression: str) -> None:
    size = 64 * MIB
    packed = bomb(compression, size)
    undo = decoder(compression)
    total = largest = 0
    tracemalloc.start()
    try:
        for piece in undo.feed(packed):
            total += len(piece)
            largest = max(largest, len(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    undo.finish()
    assert total == size
    assert largest <= MAX_PIECE
    assert peak < 8 * MIB


def test_uncompressed_data_comes_in_pieces_too() -> None:
    pieces = list(decoder("none").feed(bytes(3 * MIB + 1)))
    assert [len(piece) for piece in pieces] == [MIB, MIB, MIB, 1]


def test_encodings_are_undone_from_the_outermost_to_the_compression() -> None:
    packed = zstd(gzip.compress(lzma.compress(SAMPLE)))
    assert decode("xz", slivers(packed), ("zstd", "gzip")) == SAMPLE


def test_a_bomb_within_a_bomb_is_bounded() -> None:
    packed = zstd(bomb("gzip", 64 * MIB))
    pieces = decoder("gzip", ("zstd",)).feed(packed)
    assert max(len(piece) for piece in pieces) <= MAX_PIECE


@pytest.mark.parametrize("compression", ["lzip", "compress", "", "XZ"])
def test_an_unknown_compression_is_unsupported_by_name(compression: str) -> None:
    with pytest.raises(Unsupported, match=f"'{compression}'"):
        decoder(compression)


def test_an_unknown_encoding_is_unsupported_by_name() -> None:
    with pytest.raises(Unsupported, match="'deflate'"):
        decoder("xz", ["deflate"])


def test_a_tower_of_encodings_is_refused_before_anything_is_undone() -> None:
    assert decode("none", [gzip.compress(gzip.compress(SAMPLE))], ("gzip", "gzip")) == SAMPLE
    with pytest.raises(Unsupported, match="1000 codings"):
        decoder("none", ["gzip"] * 1000)
