"""Compositions drawn by lot, as shapes: which node is over which, whatever the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

GROUPS = ("race", "fallback", "shard", "mirror")
# Branches below each other, at most, and how many leaves there may be.
_DEPTH = 3
_LEAVES = 5


@dataclass(frozen=True)
class Shape:
    """A node with what is below it; a leaf has nothing, and may be below several."""

    kind: str
    name: str
    inner: tuple[Shape, ...] = ()

    def __str__(self) -> str:
        if not self.inner:
            return self.name
        return f"{self.kind}({', '.join(map(str, self.inner))})"

    def leaves(self) -> list[Shape]:
        """The leaves below, each once."""
        if not self.inner:
            return [self]
        return list(dict.fromkeys(leaf for each in self.inner for leaf in each.leaves()))

    def nodes(self) -> Iterator[Shape]:
        yield self
        for each in self.inner:
            yield from each.nodes()


def draw(random: Random) -> Shape:
    """Any composition of groups, caches and memories of absence over a few leaves."""
    return _Drawing(random).branch(_DEPTH)


class _Drawing:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._leaves: list[Shape] = []
        self._nodes = 0

    def branch(self, depth: int) -> Shape:
        if depth == 0 or (depth < _DEPTH and self._random.random() < 0.4):
            return self._leaf()
        kind = self._random.choice([*GROUPS, "cache", "cache", "cache", "negative"])
        self._nodes += 1
        name = f"{kind}-{self._nodes}"
        if kind == "negative":
            return Shape(kind, name, (self.branch(depth - 1),))
        members = 2 if kind == "cache" else self._random.randrange(1, 4)
        return Shape(kind, name, tuple(self.branch(depth - 1) for _ in range(members)))

    def _leaf(self) -> Shape:
        # Two tiers may share one.
        if self._leaves and (len(self._leaves) == _LEAVES or self._random.random() < 0.15):
            return self._random.choice(self._leaves)
        leaf = Shape("leaf", f"leaf-{len(self._leaves)}")
        self._leaves.append(leaf)
        return leaf
