"""Directories and Nodes: as tvix and snix wrote them, bytes that are none, and round trips."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.castore.samples import directories, golden, names, nodes
from tvixstore.castore import (
    EMPTY_DIGEST,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SizeRule,
    SymlinkNode,
    decode_directory,
    decode_node,
    encode_directory,
    encode_node,
)
from tvixstore.errors import InvalidData

CASTORE = golden("castore.json")
MORE = golden("castore-more.json")

VALID: dict[str, dict[str, Any]] = {
    **CASTORE["valid_directories"],
    **{
        f"{name}, {rule}": {**row, "rule": rule}
        for rule, rows in MORE["fixtures_by_size_rule"].items()
        for name, row in rows.items()
    },
}
INVALID: dict[str, str] = {
    **{row["why"]: row["wire_hex"] for row in CASTORE["invalid_directories"]},
    **{row["why"]: row["wire_hex"] for row in MORE["not_canonical"]},
    **{row["what"]: row["wire_hex"] for row in MORE["limits"] if not row["valid"]},
    "an empty name written out": "1a050a00120174",
    "a number of eleven bytes": "0a2f0a01611220" + "00" * 32 + "18" + "ff" * 10 + "01",
    "a size of 65 bits": "0a300a01611220" + "00" * 32 + "18" + "ff" * 9 + "02",
    "a size that is not minimal": "12280a01611220" + "00" * 32 + "188100",
    "executable as 2": "12270a01611220" + "00" * 32 + "2002",
    "executable on a directory": "0a270a01611220" + "00" * 32 + "2001",
    "executable before size": "12290a01611220" + "00" * 32 + "20011801",
    "a tag of an unknown list": "22250a01611220" + "00" * 32,
    "symlinks before files": "1a060a0161120174" + "12250a01621220" + "00" * 32,
    "an entry shorter than its fields": "12240a01611220" + "00" * 32,
    "a name that runs into the next entry": "1a030a0a611a060a0162120174",
    "an entry of nothing": "0a00",
}
LIMITS = {row["what"]: row["wire_hex"] for row in MORE["limits"] if row["valid"]}


@pytest.mark.parametrize("row", VALID.values(), ids=VALID)
def test_golden_directories_read_and_write(row: dict[str, Any]) -> None:
    wire = bytes.fromhex(row["wire_hex"])
    directory = decode_directory(wire)
    assert directory.digest.hex() == row["digest_hex"]
    assert SizeRule(row.get("rule", "documented")).size_of(directory) == row["size"]
    assert encode_directory(Directory(directory.entries)) == wire


@pytest.mark.parametrize("wire_hex", INVALID.values(), ids=INVALID)
def test_what_is_no_canonical_directory_is_refused(wire_hex: str) -> None:
    with pytest.raises(InvalidData):
        decode_directory(bytes.fromhex(wire_hex))


@pytest.mark.parametrize("wire_hex", LIMITS.values(), ids=LIMITS)
def test_what_is_just_within_the_limits_is_taken(wire_hex: str) -> None:
    directory = decode_directory(bytes.fromhex(wire_hex))
    assert encode_directory(Directory(directory.entries)).hex() == wire_hex


@pytest.mark.parametrize("row", CASTORE["blobs"], ids=lambda row: row["what"])
def test_golden_blobs_have_their_digest(row: dict[str, Any]) -> None:
    content = {
        "empty": b"",
        "b'Hello World!'": b"Hello World!",
        "bytes(range(255)) * 4096": bytes(range(255)) * 4096,
        "b'\\x00\\x01'": b"\0\1",
    }[row["what"]]
    assert len(content) == row["size"]
    assert Digest.of(content) == Digest.from_hex(row["digest_hex"])


@given(directories)
def test_directories_survive_the_wire(directory: Directory) -> None:
    assert decode_directory(encode_directory(directory)) == directory


@given(directories, st.data())
def test_a_damaged_directory_is_refused_or_still_canonical(
    directory: Directory, data: st.DataObject
) -> None:
    wire = bytearray(directory.wire)
    if wire:
        at = data.draw(st.integers(0, len(wire) - 1))
        wire[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(wire)))
    _canonical_or_refused(bytes(wire[:cut]) + data.draw(st.binary(max_size=3)))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_canonical(wire: bytes) -> None:
    _canonical_or_refused(wire)


def _canonical_or_refused(wire: bytes) -> None:
    try:
        directory = decode_directory(wire)
    except InvalidData:
        return
    assert encode_directory(Directory(directory.entries)) == wire


def test_every_cut_through_a_directory_is_refused() -> None:
    # The root of a closure with all three kinds; a cut between two entries leaves a Directory.
    wire = bytes.fromhex(VALID["all-three-kinds"]["wire_hex"])
    whole = {0, 44, 87}
    for cut in range(len(wire)):
        if cut in whole:
            decode_directory(wire[:cut])
        else:
            with pytest.raises(InvalidData):
                decode_directory(wire[:cut])


def test_a_refusal_names_the_entry_and_where_it_is() -> None:
    wire = bytes.fromhex("12250a01611220" + "00" * 32 + "12270a01621220" + "00" * 32 + "1800")
    with pytest.raises(InvalidData, match="entry b'b' at byte 39 has a size of 0 written out"):
        decode_directory(wire)


@given(nodes, st.one_of(st.just(b""), names))
def test_nodes_survive_the_wire_with_and_without_a_name(node: Node, name: bytes) -> None:
    assert decode_node(encode_node(node, name)) == (name, node)


NO_NODES = {
    "nothing": "",
    "an unknown alternative": "22221220" + "00" * 32,
    "two alternatives": "12221220" + "00" * 32 + "1a03120174",
    "bytes after the end": "1a0312017400",
    "a length beyond the end": "1a04120174",
    "an empty name written out": "1a050a00120174",
    "a name with a slash": "1a060a012f120174",
    "no digest": "1200",
    "a target that is empty": "1a021200",
}


@pytest.mark.parametrize("wire_hex", NO_NODES.values(), ids=NO_NODES)
def test_what_is_no_canonical_node_is_refused(wire_hex: str) -> None:
    with pytest.raises(InvalidData):
        decode_node(bytes.fromhex(wire_hex))


@given(st.binary(max_size=60))
def test_any_bytes_are_no_node_or_a_canonical_one(wire: bytes) -> None:
    try:
        name, node = decode_node(wire)
    except InvalidData:
        return
    assert encode_node(node, name) == wire


def test_golden_nodes_read_and_write() -> None:
    for row in golden("nix.json")["nars"]:
        wire = bytes.fromhex(row["castore_node_hex"])
        name, node = decode_node(wire)
        assert name.decode() == row["store_path"].removeprefix("/nix/store/")
        assert encode_node(node, name) == wire


@pytest.mark.parametrize(
    "entries",
    [
        ((b"b", SymlinkNode(b"t")), (b"a", SymlinkNode(b"t"))),
        ((b"a", SymlinkNode(b"t")), (b"a", FileNode(EMPTY_DIGEST, 0))),
        ((b"a", SymlinkNode(b"t")), (b"a/b", SymlinkNode(b"t"))),
        ((b"", SymlinkNode(b"t")),),
        ((b"..", SymlinkNode(b"t")),),
        ((b"a", SymlinkNode(b"t")), (b"b\0", SymlinkNode(b"t"))),
        ((b"n" * 256, SymlinkNode(b"t")),),
    ],
)
def test_a_directory_is_valid_once_built(entries: tuple[tuple[bytes, Node], ...]) -> None:
    with pytest.raises(InvalidData):
        Directory(entries)


@pytest.mark.parametrize("size", [-1, 2**64])
def test_a_node_has_a_size_of_64_bits(size: int) -> None:
    with pytest.raises(InvalidData):
        FileNode(EMPTY_DIGEST, size)
    with pytest.raises(InvalidData):
        DirectoryNode(EMPTY_DIGEST, size)


def test_a_directory_finds_its_entries_by_name() -> None:
    directory = Directory.of([(b"b", SymlinkNode(b"t")), (b"a", FileNode(EMPTY_DIGEST, 0))])
    assert [name for name, _ in directory] == [b"a", b"b"]
    assert directory.get(b"b") == SymlinkNode(b"t")
    assert directory.get(b"c") is None
    assert directory.children == []
