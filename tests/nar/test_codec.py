"""NARs read and written, as bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nar.trees import File, Link, Tree, deep, nar_of, read, tree_of, trees
from tests.nar.vectors import INVALID, VALID, Valid
from tvixstore.errors import InvalidData
from tvixstore.nar import (
    CloseDirectory,
    Contents,
    NarReader,
    OpenDirectory,
    Regular,
    Symlink,
    close_directory,
    close_regular,
    open_directory,
    open_regular,
    symlink,
)

SIZES = [None, 1, 7, 8, 100]


def write(name: bytes, tree: Tree) -> bytes:
    match tree:
        case File(data, executable):
            size = len(data)
            return open_regular(name, size, executable) + data + close_regular(name, size)
        case Link(target):
            return symlink(name, target)
        case dict():
            entries = b"".join(write(*entry) for entry in sorted(tree.items()))
            return open_directory(name) + entries + close_directory(name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector.what)
def test_golden_nars_are_read_and_written_again(vector: Valid, size: int | None) -> None:
    assert write(b"", tree_of(read(vector.nar, size))) == vector.nar


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("why", "nar"), INVALID, ids=[why for why, _ in INVALID])
def test_what_is_no_canonical_nar_is_refused(why: str, nar: bytes, size: int | None) -> None:
    with pytest.raises(InvalidData):
        read(nar, size)


@given(tree=trees, size=st.none() | st.integers(1, 200))
def test_what_was_written_reads_back(tree: Tree, size: int | None) -> None:
    nar = write(b"", tree)
    assert nar == nar_of(tree)
    assert tree_of(read(nar, size)) == tree


@given(tree=trees, data=st.data())
def test_a_nar_that_ends_early_or_late_is_refused(tree: Tree, data: st.DataObject) -> None:
    nar = nar_of(tree)
    end = data.draw(st.integers(0, len(nar) - 1))
    with pytest.raises(InvalidData):
        read(nar[:end], data.draw(st.sampled_from(SIZES)))
    with pytest.raises(InvalidData, match="after its end"):
        read(nar + b"\0", data.draw(st.sampled_from(SIZES)))


@given(tree=trees, data=st.data())
def test_a_changed_byte_is_refused_or_tells_another_tree(tree: Tree, data: st.DataObject) -> None:
    nar = bytearray(nar_of(tree))
    nar[data.draw(st.integers(0, len(nar) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = tree_of(read(bytes(nar)))
    except InvalidData:
        return
    assert nar_of(other) == nar


def test_events_tell_names_offsets_and_what_was_at_hand() -> None:
    nar = nar_of({b"a": File(b"12345678", True), b"b": {}, b"c": Link(b"a")})
    at = nar.index(b"12345678")
    whole = [
        OpenDirectory(b""),
        Regular(b"a", 8, True, at, b"12345678"),
        OpenDirectory(b"b"),
        CloseDirectory(),
        Symlink(b"c", b"a"),
        CloseDirectory(),
    ]
    assert read(nar) == whole
    reader = NarReader()
    reader.feed(nar[:at])
    assert list(reader.events()) == [OpenDirectory(b""), Regular(b"a", 8, True, at, b"")]
    reader.feed(nar[at : at + 3])
    assert list(reader.events()) == [Contents(b"123")]
    assert list(reader.events()) == []
    reader.feed(nar[at + 3 :])
    assert list(reader.events()) == [Contents(b"45678"), *whole[2:]]
    assert reader.offset == len(nar)
    reader.finish()


def test_contents_pass_through_without_a_copy() -> None:
    contents = bytes(100_000)
    nar = nar_of(File(contents))
    start = nar.index(b"contents") + 16
    reader = NarReader()
    reader.feed(nar[:start])
    list(reader.events())
    piece = contents[:70_000]
    reader.feed(piece)
    (event,) = reader.events()
    assert isinstance(event, Contents)
    assert event.data is piece


def test_the_next_nodes_can_be_left_for_later() -> None:
    reader = NarReader()
    reader.feed(nar_of({b"a": File(b"x"), b"b": File(b"y")}))
    assert next(reader.events()) == OpenDirectory(b"")
    assert next(reader.events()).name == b"a"  # type: ignore[union-attr]
    assert len(list(reader.events())) == 2


@pytest.mark.parametrize("leaf", [File(b""), Link(b"x"), {}], ids=["file", "link", "directory"])
def test_sixty_four_levels_are_read_and_no_more(leaf: Tree) -> None:
    tree = deep(63, leaf)
    assert tree_of(read(nar_of(tree))) == tree
    with pytest.raises(InvalidData, match="64 levels"):
        read(nar_of(deep(64, leaf)))


def test_lengths_beyond_the_announced_size_are_refused_before_the_contents_come() -> None:
    nar = nar_of(File(b"#" * 1000))
    start = nar.index(b"#")
    reader = NarReader(nar_size=1000)
    reader.feed(nar[:start])
    with pytest.raises(InvalidData, match="1000 bytes"):
        list(reader.events())


@pytest.mark.parametrize(
    "tree",
    [
        {b"a\0b": File(b"")},
        {b"a/b": File(b"")},
        {b".": File(b"")},
        {b"..": File(b"")},
        {b"": File(b"")},
        {b"n" * 256: File(b"")},
        Link(b""),
        Link(b"a\0b"),
        Link(b"t" * 4096),
    ],
)
def test_bad_names_and_targets_are_refused(tree: Tree) -> None:
    with pytest.raises(InvalidData):
        read(nar_of(tree))


def test_names_must_ascend_by_their_bytes() -> None:
    a, b = (nar_of({name: File(b"")}) for name in (b"a", b"b"))
    head, end = open_directory(b""), close_directory(b"")
    entries = [nar.removeprefix(head)[: -len(end)] for nar in (a, b)]
    assert read(head + entries[0] + entries[1] + end)
    with pytest.raises(InvalidData, match="b'a' after b'b'"):
        read(head + entries[1] + entries[0] + end)


@pytest.mark.parametrize("tree", [{b"#####": {}}, Link(b"#####"), File(b"#####")])
def test_padding_is_zeros(tree: Tree) -> None:
    nar = nar_of(tree)
    for padding in (b"\1\0\0", b"\0\0\1"):
        with pytest.raises(InvalidData):
            read(nar.replace(b"#####\0\0\0", b"#####" + padding))


def test_megabytes_in_slivers_take_no_quadratic_time() -> None:
    # A sliver never makes the reader copy more than an unfinished name, target or constant.
    nar = nar_of(File(bytes(3_000_000)))
    events = read(nar, 16)
    assert sum(len(event.data) for event in events if isinstance(event, Contents)) > 2_999_000


def test_the_vectors_are_all_there() -> None:
    assert len(VALID) >= 18
    assert len(INVALID) >= 17
    assert all(json.loads(v.ls_new_key_order) for v in VALID if v.ls_new_key_order)
