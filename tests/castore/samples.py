"""What the tests of this room share: the golden data, trees, and strategies that make more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tvixstore.castore import (
    MAX_NAME_BYTES,
    MAX_SIZE,
    MAX_TARGET_BYTES,
    Digest,
    Directory,
    DirectoryNode,
    FileNode,
    Node,
    SizeRule,
    SymlinkNode,
)

_DATA = Path(__file__).parent.parent / "data"


def golden(name: str) -> Any:
    return json.loads((_DATA / name).read_text())


def parent_of(rule: SizeRule, **children: Directory | Node) -> Directory:
    """A Directory with these entries; a child that is a Directory is named by its node."""
    entries = []
    for name, child in children.items():
        if isinstance(child, Directory):
            child = DirectoryNode(child.digest, rule.size_of(child))
        entries.append((name.encode(), child))
    return Directory.of(entries)


names = st.binary(min_size=1, max_size=MAX_NAME_BYTES).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
# The sum over a Directory's entries has to stay within 64 bits too.
sizes = st.one_of(st.integers(0, 300), st.integers(0, MAX_SIZE >> 8))
digests = st.binary(min_size=32, max_size=32).map(Digest)
nodes: st.SearchStrategy[Node] = st.one_of(
    st.builds(DirectoryNode, digests, sizes),
    st.builds(FileNode, digests, st.one_of(sizes, st.just(MAX_SIZE)), st.booleans()),
    st.builds(
        SymlinkNode,
        st.binary(min_size=1, max_size=MAX_TARGET_BYTES).filter(lambda target: b"\0" not in target),
    ),
)
directories = st.dictionaries(names, nodes, max_size=20).map(
    lambda entries: Directory.of(entries.items())
)
