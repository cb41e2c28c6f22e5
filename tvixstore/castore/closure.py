"""Closures: the Directories reachable from a root, checked as they come, from either end.

`ClosureReader` takes them from the root to the leaves, `ClosureBuilder` from the leaves to the
root. A digest that a Directory names can only be met again below it, so a closure has no cycles,
and one look at each Directory is enough: nothing here recurses, however deep the tree.

Sizes follow one of two rules (`SizeRule`). Which one is not known at first; each Directory that a
parent names rules out those that disagree, and a closure that leaves none is refused.
"""

from __future__ import annotations

from tvixstore.castore.digest import Digest
from tvixstore.castore.directory import Directory, SizeRule
from tvixstore.castore.nodes import DirectoryNode
from tvixstore.errors import InvalidData


class _Sizes:
    """Which rules the sizes seen so far have followed, and each Directory's size by either."""

    def __init__(self) -> None:
        self._known: dict[Digest, dict[SizeRule, int]] = {}
        self._rules = frozenset(SizeRule)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._known

    def add(self, directory: Directory) -> None:
        self._known[directory.digest] = {rule: rule.size_of(directory) for rule in SizeRule}

    def check(self, digest: Digest, stated: int) -> None:
        """Holds the size that a parent states for `digest` against the rules that are left."""
        sizes = self._known[digest]
        self._rules = frozenset(rule for rule in self._rules if sizes[rule] == stated)
        if not self._rules:
            by_rule = ", ".join(f"{sizes[rule]} ({rule.value})" for rule in SizeRule)
            raise InvalidData(
                f"size of {digest} is stated as {stated}, but is {by_rule}; "
                "one rule has to hold in the whole closure"
            )


class ClosureReader:
    """Takes a closure from its root to its leaves: each Directory once, after one that names it.

    Any such order will do. `missing` lists what was named and has not come, in the order of the
    naming: whoever feeds each time all that is missing, in that order, goes breadth first.
    """

    def __init__(self, root: Digest) -> None:
        # What was named, with the size stated for it; nobody states the root's.
        self._missing: dict[Digest, int | None] = {root: None}
        self._sizes = _Sizes()

    def feed(self, directory: Directory) -> None:
        """The next one. Raises `InvalidData` if nobody asked for it, or sizes contradict."""
        digest = directory.digest
        if digest not in self._missing:
            again = "comes twice" if digest in self._sizes else "is named by no parent so far"
            raise InvalidData(f"Directory {digest} {again} in this closure")
        stated = self._missing.pop(digest)
        self._sizes.add(directory)
        if stated is not None:
            self._sizes.check(digest, stated)
        for child in directory.children:
            self._name(child)

    def _name(self, child: DirectoryNode) -> None:
        if child.digest in self._sizes:
            self._sizes.check(child.digest, child.size)
        elif (stated := self._missing.setdefault(child.digest, child.size)) != child.size:
            raise InvalidData(f"size of {child.digest} is stated as {stated} and as {child.size}")

    def __contains__(self, digest: Digest) -> bool:
        """Whether that Directory has come."""
        return digest in self._sizes

    def is_missing(self, digest: Digest) -> bool:
        """Whether that Directory has been named and has not come."""
        return digest in self._missing

    def missing(self) -> list[Digest]:
        """What has been named and has not come; empty once the closure is whole."""
        return list(self._missing)


class ClosureBuilder:
    """Takes a closure from its leaves to its root: children before parents, repeats allowed."""

    def __init__(self) -> None:
        self._directories: dict[Digest, Directory] = {}
        self._sizes = _Sizes()
        self._unnamed: set[Digest] = set()
        self._last: Digest | None = None

    def add(self, directory: Directory) -> None:
        """The next one. Raises `InvalidData` if a child has not come, or sizes contradict."""
        self._last = digest = directory.digest
        if digest in self._directories:
            return
        for child in directory.children:
            if child.digest not in self._directories:
                raise InvalidData(f"Directory {digest} comes before its child {child.digest}")
            self._sizes.check(child.digest, child.size)
            self._unnamed.discard(child.digest)
        self._sizes.add(directory)
        self._directories[digest] = directory
        self._unnamed.add(digest)

    def finish(self) -> list[Directory]:
        """Each Directory once, children before parents, the root (the last one added) last.

        Raises `InvalidData` if nothing was added, or not everything hangs on the root.
        """
        if self._last is None:
            raise InvalidData("closure has no Directory at all")
        # Whatever has a parent hangs, through it, on a Directory that has none. So everything
        # hangs on the root if, and only if, the root alone has no parent.
        loose = self._unnamed - {self._last}
        if loose:
            raise InvalidData(f"Directory {min(loose)} does not hang on the root {self._last}")
        if self._last not in self._unnamed:
            raise InvalidData(f"closure goes on above {self._last}, which was added last")
        return list(self._directories.values())
