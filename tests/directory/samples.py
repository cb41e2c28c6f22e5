"""Directories to test with."""

from __future__ import annotations

from tvixstore.castore import (
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SizeRule,
    SymlinkNode,
)


def directory(
    rule: SizeRule = SizeRule.DOCUMENTED, /, **entries: Directory | Node | str
) -> Directory:
    """A Directory of subdirectories, nodes, and files given by their text."""
    return named({name.encode(): entry for name, entry in entries.items()}, rule)


def named(
    entries: dict[bytes, Directory | Node | str], rule: SizeRule = SizeRule.DOCUMENTED
) -> Directory:
    return Directory.of((name, _node(entry, rule)) for name, entry in entries.items())


def _node(entry: Directory | Node | str, rule: SizeRule) -> Node:
    if isinstance(entry, Directory):
        return DirectoryNode(entry.digest, rule.size_of(entry))
    if isinstance(entry, str):
        return FileNode(Digest.of(entry.encode()), len(entry.encode()))
    return entry


EMPTY = Directory(())
LEAF = directory(readme="read me", link=SymlinkNode(b"readme"))
OTHER = directory(tool=FileNode(Digest.of(b"tool"), 4, executable=True))
MIDDLE = directory(leaf=LEAF, other=OTHER)
# `LEAF` is below it twice, at two depths.
ROOT = directory(a=MIDDLE, b=LEAF, c="text")
CLOSURE = [LEAF, OTHER, MIDDLE, ROOT]
