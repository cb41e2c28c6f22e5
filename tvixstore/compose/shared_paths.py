"""Local nodes with the same path: they share one engine, so what they say of it has to agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvixstore.compose.graph import KINDS, Graph
from tvixstore.compose.model import Store
from tvixstore.compose.nodes import Kind, LocalNode, LocalPathInfoNode, Node
from tvixstore.compose.sections import Sections

# A key's value, and who set it.
_Said = dict[str, tuple[Any, str]]


def share_paths(sections: Sections, graph: Graph, label: Callable[[Kind, str], str]) -> Graph:
    """`graph`, with whatever one local node says of its path said by all of that path.

    Contradictions are noted in `sections`.
    """
    said: dict[Path, _Said] = {}
    for kind, name, node in graph.nodes():
        if isinstance(node, LocalNode):
            here = said.setdefault(node.path.resolve(), {})
            for key, value in _settings(node).items():
                known, who = here.setdefault(key, (value, label(kind, name)))
                if known != value:
                    sections.mistake(
                        label(kind, name),
                        key,
                        f"differs from what {who} says of the same path: "
                        "write the same, or leave it out in one of them",
                    )
    blobs, directories, path_infos = (
        {name: _completed(node, said) for name, node in graph.of(kind).items()} for kind in KINDS
    )
    return Graph(blobs, directories, path_infos)


def store_at(graph: Graph, path: Path) -> Store:
    """The settings of the store at `path`: those of a local node there, or the defaults."""
    for _, _, node in graph.nodes():
        if isinstance(node, LocalNode) and node.path.resolve() == path.resolve():
            return Store(**{key: getattr(node, key) for key in Store.model_fields})
    return Store()


def _settings(node: LocalNode) -> dict[str, Any]:
    """What `node` says of its path; a default is nothing that it says."""
    keys = node.model_fields_set & Store.model_fields.keys()
    settings = {key: getattr(node, key) for key in Store.model_fields if key in keys}
    if isinstance(node, LocalPathInfoNode):
        # One table of path infos has its content in one place.
        settings |= {key: name for key, _, name in node.content()}
    return settings


def _completed(node: Node, said: dict[Path, _Said]) -> Node:
    if not isinstance(node, LocalNode):
        return node
    here = said[node.path.resolve()]
    keys = [key for key in Store.model_fields if key in here]
    return node.model_copy(update={key: here[key][0] for key in keys})
