"""Cutting piece by piece gives the cuts of the whole; boundaries of others are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pyfastcdc import FastCDC

from tests.blob.conformance import noise, prose
from tvixstore.blob import chunking
from tvixstore.blob.chunking import MAX_CHUNK_BYTES, Chunking
from tvixstore.errors import ConfigError


def cut(data: bytes, piece: int, average: int, boundaries: list[int] | None = None) -> list[int]:
    cutter = Chunking(average).cutter(boundaries)
    chunks = []
    for begin in range(0, len(data), piece):
        chunks += [bytes(one) for one in cutter.feed([data[begin : begin + piece]], last=False)]
    chunks += [bytes(one) for one in cutter.feed([], last=True)]
    assert b"".join(chunks) == data
    return [len(chunk) for chunk in chunks]


def one_shot(data: bytes, average: int) -> list[int]:
    whole = FastCDC(average, min_size=average // 2, max_size=average * 2, normalized_chunking=1)
    return [chunk.length for chunk in whole.cut_buf(data)]


@pytest.mark.parametrize("piece", [100_001, 262_144, 2 << 20, 10 << 20])
@pytest.mark.parametrize("make", [noise, prose, lambda size: bytes(size)])
def test_random_even_and_empty_data_is_cut_as_in_one_go(make: type[bytes], piece: int) -> None:
    data = make(6_000_001)
    assert cut(data, piece, 256 << 10) == one_shot(data, 256 << 10)


@given(
    size=some.integers(0, 40_000),
    seed=some.integers(0, 1000),
    piece=some.integers(1, 9000),
    average=some.sampled_from([512, 1024, 1500, 4096]),
)
def test_any_data_in_any_pieces_is_cut_as_in_one_go(
    size: int, seed: int, piece: int, average: int
) -> None:
    data = noise(size, seed)
    assert cut(data, piece, average) == one_shot(data, average)


@given(
    sizes=some.lists(some.integers(1, 3000), max_size=8),
    extra=some.integers(-500, 5000),
    piece=some.integers(1, 5000),
)
def test_boundaries_are_kept_as_far_as_they_go(sizes: list[int], extra: int, piece: int) -> None:
    data = noise(max(0, sum(sizes) + extra))
    found = cut(data, piece, 1024, sizes)
    if extra >= 0:
        assert found[: len(sizes)] == sizes
        assert found[len(sizes) :] == one_shot(data[sum(sizes) :], 1024)
    else:
        assert found[:-1] == sizes[: len(found[:-1])]


@pytest.mark.parametrize("boundaries", [[0, 3000], [-1, 3001], [MAX_CHUNK_BYTES + 1]])
def test_boundaries_that_cannot_be_kept_are_left_aside(boundaries: list[int]) -> None:
    data = noise(3000)
    assert cut(data, 100, 1024, boundaries) == one_shot(data, 1024)


@pytest.mark.parametrize("average", [0, 511, (2 << 20) + 1])
def test_an_average_that_the_chunker_cannot_do_is_a_mistake_in_the_file(average: int) -> None:
    with pytest.raises(ConfigError, match=f"chunk_size is {average} bytes, expected 512 to"):
        Chunking(average)


def test_the_chunker_in_pure_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "FastCDC", None)
    with pytest.raises(ConfigError, match="without its compiled part"):
        Chunking(256 << 10)
