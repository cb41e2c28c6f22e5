"""Closures from either end: order, connection, sizes by either rule, and great depth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.castore.samples import golden, parent_of
from tvixstore.castore import (
    EMPTY_DIGEST,
    ClosureBuilder,
    ClosureReader,
    Directory,
    DirectoryNode,
    FileNode,
    SizeRule,
    SymlinkNode,
    decode_directory,
)
from tvixstore.errors import InvalidData

RULES = pytest.mark.parametrize("rule", SizeRule, ids=lambda rule: rule.value)
DOCUMENTED, DOUBLED = SizeRule

EMPTY = Directory(())
FILE = FileNode(EMPTY_DIGEST, 0)
LEAF = Directory.of([(b"leaf", FILE)])


def build(*directories: Directory) -> list[Directory]:
    builder = ClosureBuilder()
    for directory in directories:
        builder.add(directory)
    return builder.finish()


def read(*directories: Directory) -> ClosureReader:
    reader = ClosureReader(directories[0].digest)
    for directory in directories:
        reader.feed(directory)
    return reader


def deep_tree(depth: int, rule: SizeRule) -> list[Directory]:
    """Leaves first: each Directory but the first holds the one before it."""
    tree = [LEAF]
    for _ in range(depth):
        tree.append(parent_of(rule, down=tree[-1]))
    return tree


@RULES
def test_golden_closures_are_whole_from_either_end(rule: SizeRule) -> None:
    rows = golden("castore-more.json")["fixtures_by_size_rule"][rule.value]
    by_name = {name: decode_directory(bytes.fromhex(row["wire_hex"])) for name, row in rows.items()}
    for root, *below in (("complicated", "with_keep"), ("D", "B", "A"), ("C", "A"), ("A",)):
        closure = [by_name[name] for name in (root, *below)]
        assert read(*closure).missing() == []
        assert build(*reversed(closure)) == closure[::-1]


@RULES
def test_a_tree_of_any_depth_is_taken_without_recursion(rule: SizeRule) -> None:
    tree = deep_tree(10_000, rule)
    assert build(*tree) == tree
    assert read(*reversed(tree)).missing() == []


def test_missing_lists_what_was_named_in_the_order_of_naming() -> None:
    one = parent_of(DOCUMENTED, x=LEAF, y=EMPTY)
    two = parent_of(DOCUMENTED, z=LEAF)
    root = parent_of(DOCUMENTED, a=two, b=one)
    reader = ClosureReader(root.digest)
    assert reader.missing() == [root.digest]
    reader.feed(root)
    assert reader.missing() == [two.digest, one.digest]
    reader.feed(two)
    reader.feed(one)
    assert reader.missing() == [LEAF.digest, EMPTY.digest]


def test_a_reader_takes_each_directory_once_and_only_what_was_named() -> None:
    root = parent_of(DOCUMENTED, a=LEAF)
    reader = ClosureReader(root.digest)
    with pytest.raises(InvalidData, match="named by no parent"):
        reader.feed(LEAF)
    reader.feed(root)
    reader.feed(LEAF)
    with pytest.raises(InvalidData, match="comes twice"):
        reader.feed(LEAF)


def test_a_builder_takes_children_before_parents_only() -> None:
    root = parent_of(DOCUMENTED, a=LEAF)
    builder = ClosureBuilder()
    with pytest.raises(InvalidData, match="before its child"):
        builder.add(root)


def test_a_builder_drops_repeats() -> None:
    root = parent_of(DOCUMENTED, a=LEAF, b=LEAF)
    assert build(LEAF, LEAF, root, root) == [LEAF, root]


@pytest.mark.parametrize(
    "directories",
    [
        (),
        (LEAF, EMPTY),
        (EMPTY, LEAF, parent_of(DOCUMENTED, a=LEAF)),
        # What was added last is the root, even where it came before.
        (LEAF, parent_of(DOCUMENTED, a=LEAF), LEAF),
    ],
    ids=["nothing", "two roots", "a loose leaf", "a leaf as root"],
)
def test_a_builder_refuses_what_does_not_hang_on_the_last_one(
    directories: tuple[Directory, ...],
) -> None:
    with pytest.raises(InvalidData):
        build(*directories)


def stating(directory: Directory, size: int) -> DirectoryNode:
    return DirectoryNode(directory.digest, size)


MIDDLE = parent_of(DOCUMENTED, m=LEAF)

# Closures from the root down whose sizes follow no rule throughout.
WRONG_SIZES = {
    "off by one": [Directory.of([(b"a", stating(LEAF, 3))]), LEAF],
    "an empty one that isn't 0": [Directory.of([(b"a", stating(EMPTY, 1))]), EMPTY],
    "documented below, doubled above": [
        Directory.of([(b"a", stating(MIDDLE, 3))]),
        MIDDLE,
        LEAF,
    ],
    "one directory by both rules, side by side": [
        Directory.of([(b"a", stating(LEAF, 1)), (b"b", stating(LEAF, 2))]),
        LEAF,
    ],
    "two directories, each by another rule": [
        Directory.of(
            [
                (b"a", stating(LEAF, 1)),
                (b"b", stating(Directory.of([(b"l", SymlinkNode(b"t"))]), 2)),
            ]
        ),
        LEAF,
        Directory.of([(b"l", SymlinkNode(b"t"))]),
    ],
}


@pytest.mark.parametrize("closure", WRONG_SIZES.values(), ids=WRONG_SIZES)
def test_sizes_that_follow_neither_rule_throughout_are_refused(closure: list[Directory]) -> None:
    with pytest.raises(InvalidData, match="size of"):
        read(*closure)
    with pytest.raises(InvalidData, match="size of"):
        build(*reversed(closure))


def test_a_size_is_checked_against_a_parent_that_comes_later_too() -> None:
    late = Directory.of([(b"again", stating(LEAF, 2))])
    root = parent_of(DOCUMENTED, a=LEAF, b=late)
    reader = ClosureReader(root.digest)
    reader.feed(root)
    reader.feed(LEAF)
    with pytest.raises(InvalidData, match="size of"):
        reader.feed(late)


@st.composite
def trees(draw: st.DrawFn) -> tuple[SizeRule, list[Directory]]:
    """A closure, children before parents, with Directories that several parents share."""
    rule = draw(st.sampled_from(SizeRule))
    made = [EMPTY]
    for _ in range(draw(st.integers(1, 8))):
        children = draw(st.lists(st.sampled_from(made), max_size=3))
        files = draw(st.integers(0, 2))
        entries = {f"d{n}": child for n, child in enumerate(children)}
        made.append(parent_of(rule, **entries, **{f"f{n}": FILE for n in range(files)}))
    root = parent_of(rule, **{f"r{n}": directory for n, directory in enumerate(made)})
    return rule, [*made, root]


@given(trees())
def test_both_ends_agree_on_any_tree(tree: tuple[SizeRule, list[Directory]]) -> None:
    _, directories = tree
    closure = build(*directories)
    by_digest = {directory.digest: directory for directory in closure}
    root = closure[-1]
    reader = ClosureReader(root.digest)
    fed = 0
    while wanted := reader.missing():
        for digest in wanted:
            reader.feed(by_digest[digest])
            fed += 1
    assert fed == len(closure) == len({directory.digest for directory in directories})


@given(trees(), st.data())
def test_a_builder_refuses_any_tree_with_a_leaf_left_out(
    tree: tuple[SizeRule, list[Directory]], data: st.DataObject
) -> None:
    _, directories = tree
    closure = build(*directories)
    left_out = data.draw(st.integers(0, len(closure) - 2))
    with pytest.raises(InvalidData):
        build(*closure[:left_out], *closure[left_out + 1 :])
