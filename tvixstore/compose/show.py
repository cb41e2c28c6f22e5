"""What a composition became, as text: the daemon's settings, and a tree a kind of service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tvixstore.compose.graph import Graph
from tvixstore.compose.model import Daemon, Section
from tvixstore.compose.nodes import Kind, Node
from tvixstore.log import redact


def show(daemon: Daemon, graph: Graph) -> str:
    """`daemon` and `graph` as lines of text, credentials left out."""
    return "\n".join(
        [
            "daemon",
            *(f"  {key} = {value}" for key, value in _settings(daemon).items()),
            "blobs",
            *tree(graph, "blobs"),
            "directories",
            *tree(graph, "directories"),
            "path infos",
            *tree(graph, "path_infos"),
        ]
    )


def tree(graph: Graph, kind: Kind) -> list[str]:
    """What hangs on the top of that kind, a line a node, and then what other kinds have of it."""
    nodes = graph.of(kind)
    shown: set[str] = set()
    lines = list(_branch(nodes, graph.top(kind), "", "  ", "  ", shown))
    for reached, name in sorted(graph.reachable()):
        if reached == kind and name not in shown and name in _named_by_others(graph, kind):
            lines += _branch(nodes, name, "", "  ", "  ", shown)
    return lines


def _named_by_others(graph: Graph, kind: Kind) -> set[str]:
    return {
        name for _, _, node in graph.nodes() for _, other, name in node.content() if other == kind
    }


def _branch(
    nodes: Mapping[str, Node], name: str, role: str, lead: str, indent: str, shown: set[str]
) -> Iterator[str]:
    """`name` on a line that begins with `lead`, and below it, after `indent`, what it is over."""
    node = nodes.get(name)
    if node is None:
        yield f"{lead}{role}{name} (missing)"
        return
    settings = _settings(node)
    line = f"{lead}{role}{name} ({settings.pop('type')})"
    neighbours = node.neighbours()
    if name in shown and neighbours:
        # Shared, or in a circle: either way it is not told twice.
        yield f"{line} as above"
        return
    shown.add(name)
    pairs = [f"{key}={value}" for key, value in settings.items() if key not in node.references]
    yield " ".join([line, *pairs])
    for number, (key, neighbour) in enumerate(neighbours, 1):
        corner, below = ("└─ ", "   ") if number == len(neighbours) else ("├─ ", "│  ")
        role = f"{key}: " if key in ("near", "far") else ""
        yield from _branch(nodes, neighbour, role, indent + corner, indent + below, shown)


def _settings(section: Section) -> dict[str, str]:
    """The keys of `section` that are set, own ones before inherited ones, as one writes them."""
    values = section.model_dump(mode="json", exclude_none=True)
    keys = [
        key for model in type(section).__mro__ for key in vars(model).get("__annotations__", ())
    ]
    return {key: _text(values[key]) for key in keys if key in values}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_text, value)) or "none"
    return redact(str(value))
