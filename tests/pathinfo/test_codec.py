"""PathInfo messages against the vectors and wrong ones; records against flipped bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvixstore.castore import Digest, DirectoryNode, FileNode, SymlinkNode, encode_node
from tvixstore.castore.message import bytes_field
from tvixstore.errors import InvalidData
from tvixstore.nix import ContentAddress, NixHash, Signature, StorePath
from tvixstore.nix.content_address import Method
from tvixstore.nix.hashes import SIZES, Algorithm
from tvixstore.pathinfo import PathInfo
from tvixstore.pathinfo.codec import (
    decode_path_info,
    decode_record,
    encode_path_info,
    encode_record,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "pathinfo.json").read_text()
)


def _what(vector: dict[str, str]) -> str:
    return vector["what"]


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=_what)
def test_a_valid_message_is_read_and_written_to_the_byte(vector: dict[str, str]) -> None:
    wire = bytes.fromhex(vector["wire_hex"])
    assert encode_path_info(decode_path_info(wire)) == wire


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=_what)
def test_an_invalid_message_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(InvalidData):
        decode_path_info(bytes.fromhex(vector["wire_hex"]))


def test_the_refusal_names_field_and_position() -> None:
    vector = next(each for each in VECTORS["invalid"] if "disagree" in each["what"])
    with pytest.raises(InvalidData, match=r"references\[0\]"):
        decode_path_info(bytes.fromhex(vector["wire_hex"]))


_names = st.from_regex(r"[0-9a-zA-Z+\-._?=]{1,50}", fullmatch=True)
_paths = st.builds(StorePath, st.binary(min_size=20, max_size=20), _names)
_digests = st.builds(Digest, st.binary(min_size=32, max_size=32))
_sizes = st.integers(0, 2**64 - 1)
_kinds = [
    (method, algorithm)
    for method in get_args(Method)
    for algorithm in get_args(Algorithm)
    if method != "text" or algorithm == "sha256"
]


@st.composite
def _content_addresses(draw: st.DrawFn) -> ContentAddress:
    method, algorithm = draw(st.sampled_from(_kinds))
    size = SIZES[algorithm]
    return ContentAddress(method, NixHash(algorithm, draw(st.binary(min_size=size, max_size=size))))


_infos = st.builds(
    PathInfo,
    store_path=_paths,
    nar_sha256=st.binary(min_size=32, max_size=32),
    nar_size=_sizes,
    # In any order, repeats included.
    references=st.lists(_paths, max_size=5).map(tuple),
    signatures=st.lists(
        st.builds(
            Signature,
            st.text("abcdefghijk-.0123456789é", min_size=1, max_size=20),
            st.binary(min_size=64, max_size=64),
        ),
        max_size=3,
    ).map(tuple),
    deriver=st.none() | st.builds(lambda path: StorePath(path.hash, f"{path.name}.drv"), _paths),
    ca=st.none() | _content_addresses(),
    node=st.one_of(
        st.builds(DirectoryNode, _digests, _sizes),
        st.builds(FileNode, _digests, _sizes, st.booleans()),
        st.builds(SymlinkNode, st.binary(min_size=1, max_size=50).filter(lambda t: 0 not in t)),
    ),
)


@given(_infos)
def test_whatever_a_path_info_holds_comes_back(info: PathInfo) -> None:
    assert decode_path_info(encode_path_info(info)) == info
    assert decode_record(encode_record(info)) == info


SAMPLE = PathInfo(
    store_path=StorePath(bytes(range(20)), "sample-1.0"),
    nar_sha256=bytes(range(32)),
    nar_size=2**40,
    references=(StorePath(bytes(20), "b"), StorePath(bytes(range(20)), "sample-1.0")),
    signatures=(Signature("key-1", bytes(64)),),
    deriver=StorePath(bytes(20), "sample-1.0.drv"),
    ca=ContentAddress("flat", NixHash("sha1", bytes(20))),
    node=FileNode(Digest.of(b"x"), 1, executable=True),
)


def test_a_deriver_that_is_no_derivation_is_left_out() -> None:
    odd = replace(SAMPLE, deriver=StorePath(bytes(20), "sample"))
    assert decode_path_info(encode_path_info(odd)) == replace(SAMPLE, deriver=None)


def test_a_truncated_message_is_refused_wherever_it_ends() -> None:
    wire = encode_path_info(SAMPLE)
    for end in range(len(wire)):
        with pytest.raises(InvalidData):
            decode_path_info(wire[:end])


def test_unknown_fields_are_skipped() -> None:
    wire = encode_path_info(SAMPLE)
    for unknown in ("7a0141", "f80101", "7d01020304", "790102030405060708", "808080800801"):
        assert decode_path_info(bytes.fromhex(unknown) + wire) == SAMPLE


@pytest.mark.parametrize(
    "addition",
    [
        pytest.param(bytes_field(1, encode_node(SAMPLE.node)), id="a second node"),
        pytest.param(bytes_field(3, b""), id="a second narinfo"),
        pytest.param(bytes.fromhex("1001"), id="a reference that is a number"),
        pytest.param(bytes.fromhex("0001"), id="a field numbered 0"),
        pytest.param(bytes.fromhex("7b7c"), id="a group"),
        pytest.param(bytes.fromhex("7880808080808080808080"), id="a number that never ends"),
        pytest.param(bytes.fromhex("78ffffffffffffffffff02"), id="a number above 64 bits"),
    ],
)
def test_what_a_lenient_reader_would_guess_at_is_refused(addition: bytes) -> None:
    with pytest.raises(InvalidData):
        decode_path_info(encode_path_info(SAMPLE) + addition)


def test_a_record_with_any_bit_flipped_is_refused() -> None:
    record = encode_record(SAMPLE)
    for position in range(len(record)):
        flipped = bytearray(record)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(InvalidData):
            decode_record(bytes(flipped))


@pytest.mark.parametrize("length", [0, 1, 8, 9, 40])
def test_a_short_record_is_refused(length: int) -> None:
    with pytest.raises(InvalidData):
        decode_record(encode_record(SAMPLE)[:length])
