"""Graphs that nothing can be built of: circles, and chains without end."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from tvixstore.compose.graph import Graph
from tvixstore.compose.nodes import Kind

Place = tuple[Kind, str]

# Nodes one over the other; each costs a few calls of the stack in every request.
DEEPEST = 60
# After so many, whoever reads them knows.
_MOST_CIRCLES = 20


def circles(graph: Graph) -> Iterator[list[Place]]:
    """Circles of nodes, each beginning and ending with the same one; another one after an edge of
    each was taken out."""
    edges = _edges(graph)
    for _ in range(_MOST_CIRCLES):
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            circle: list[Place] = list(reversed(error.args[1]))
            yield _from_the_first(circle, list(edges))
            edges[circle[0]].remove(circle[1])
        else:
            return


def too_deep(graph: Graph) -> Iterator[Place]:
    """Nodes that stand on more than `DEEPEST` others, one over the other. There is no circle."""
    edges = _edges(graph)
    depths: dict[Place, int] = {}
    for place in TopologicalSorter(edges).static_order():
        depths[place] = 1 + max((depths[below] for below in edges.get(place, ())), default=0)
        if depths[place] > DEEPEST:
            yield place


def _edges(graph: Graph) -> dict[Place, list[Place]]:
    return {
        (kind, name): [
            *((kind, below) for _, below in node.neighbours()),
            *((other, below) for _, other, below in node.content()),
        ]
        for kind, name, node in graph.nodes()
    }


def _from_the_first(circle: list[Place], order: list[Place]) -> list[Place]:
    """The same circle, from that node on which comes first in the file."""
    around = circle[:-1]
    start = min(range(len(around)), key=lambda index: order.index(around[index]))
    return [*around[start:], *around[:start], around[start]]
