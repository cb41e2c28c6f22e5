"""Where references are counted, and so which stores may evict.

A store counts what its own rows refer to. What is referred to from elsewhere looks like waste to
it: blobs of paths that another store knows, say, or of Directories that are kept elsewhere. So it
evicts only where everything that keeps its content is beside that.
"""

from __future__ import annotations

from pathlib import Path

from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.nodes import (
    CacheNode,
    FallbackNode,
    GrpcPathInfoNode,
    Kind,
    LocalNode,
    LocalPathInfoNode,
    NixNode,
    RaceNode,
    ReadOnlyNode,
    VerifyPathInfoNode,
)

# Of a place that is no store of ours: another daemon, a bucket, memory.
_ELSEWHERE = None
# They keep no path infos here.
_KEEP_NOTHING = (NixNode, GrpcPathInfoNode, VerifyPathInfoNode)


def home(graph: Graph) -> Path | None:
    """Where what is written to the roots goes, if all of it goes into one local store."""
    places = _written(graph, "blobs", ROOT) | _written(graph, "directories", ROOT)
    (place,) = places if len(places) == 1 else (_ELSEWHERE,)
    return place


def why_uncounted(graph: Graph, place: Path, rows: Path) -> str | None:
    """Why nobody can say what in the store at `place` is needed; `None` if that is counted there.

    `rows` is the store whose rows name uploads and extras, whose content is in the roots.
    """
    here = False
    keepers = [
        (
            f"pathinfoservices.{name}",
            node.path.resolve() if isinstance(node, LocalPathInfoNode) else _ELSEWHERE,
            [(kind, content) for _, kind, content in node.content()],
        )
        for name, node in graph.path_infos.items()
        if node.content() and not isinstance(node, _KEEP_NOTHING)
    ]
    roots: list[tuple[Kind, str]] = [("blobs", ROOT), ("directories", ROOT)]
    uploads = ("what is uploaded", rows.resolve(), roots)
    for who, where, content in [*keepers, uploads]:
        if where != place:
            if any(place in _reached(graph, *each) for each in content):
                return f"{who} is kept elsewhere, and has its content here"
        elif (who, where, content) != uploads:
            here = True
            if any(_written(graph, *each) != {place} for each in content):
                return f"{who} is kept here, and does not have all of its content here"
    return None if here else "no path infos are kept here"


def _reached(graph: Graph, kind: Kind, name: str) -> set[Path | None]:
    """All places where a service may find something."""
    return _places(graph, kind, name, writing=False)


def _written(graph: Graph, kind: Kind, name: str) -> set[Path | None]:
    """The places that it writes to."""
    return _places(graph, kind, name, writing=True)


def _places(graph: Graph, kind: Kind, name: str, *, writing: bool) -> set[Path | None]:
    places: set[Path | None] = set()
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.of(kind).get(name)
        below = [] if node is None else [neighbour for _, neighbour in node.neighbours()]
        if isinstance(node, LocalNode):
            places.add(node.path.resolve())
        elif not below:
            places.add(_ELSEWHERE)
        elif writing and isinstance(node, CacheNode):
            ahead.append(node.near)
        elif writing and isinstance(node, FallbackNode | RaceNode):
            ahead += _first_writable(graph, kind, below)
        else:
            ahead += below
    return places


def _first_writable(graph: Graph, kind: Kind, members: list[str]) -> list[str]:
    nodes = graph.of(kind)
    return [each for each in members if not isinstance(nodes.get(each), ReadOnlyNode)][:1]
