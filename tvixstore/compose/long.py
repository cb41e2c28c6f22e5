"""The long form: a table a node, checked one by one and then together as a graph.

A URL in place of a name becomes a node of its own, called after whoever has it, so that what comes
after the loader knows names only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from tvixstore.compose.graph import KINDS, ROOT, Graph
from tvixstore.compose.graph_checks import circles, too_deep
from tvixstore.compose.mistakes import unknown_choice
from tvixstore.compose.model import Daemon
from tvixstore.compose.nodes import NODE_TYPES, REFUSED_TYPES, Kind, NixNode, Node
from tvixstore.compose.plugin import find_node_type, installed
from tvixstore.compose.sections import Sections, explained
from tvixstore.compose.shared_paths import share_paths
from tvixstore.compose.short import check_connection, free_name
from tvixstore.compose.urls import is_service_url, table_of_url
from tvixstore.compose.values import quote

SECTIONS: dict[Kind, str] = {
    "blobs": "blobservices",
    "directories": "directoryservices",
    "path_infos": "pathinfoservices",
}
# URLs in URLs. Nobody needs more, and each level makes them longer.
_DEEPEST_URL = 8


def load_graph(
    sections: Sections, document: Mapping[str, object], daemon: Daemon | None, *, whole: bool
) -> Graph:
    """The graph that the long form in `document` says; what is wrong is noted in `sections`.

    `whole`: everything has to be there. Otherwise only what is there is looked at.
    """
    loader = _Loader(sections, whole)
    for kind, section in SECTIONS.items():
        loader.load(kind, sections.table(document, section), document.get(section))
    loader.resolve()
    graph = loader.graph()
    _check_graph(sections, graph, loader)
    if daemon is not None:
        graph = _with_keys_of(daemon, graph)
    return share_paths(sections, graph, loader.label)


def label_of(kind: Kind, name: str) -> str:
    """How a node's table begins."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    shown = name if plain.isascii() and plain.isalnum() else quote(name)
    return f"[{SECTIONS[kind]}.{shown}]"


@dataclass(eq=False)
class _Loader:
    sections: Sections
    whole: bool
    nodes: dict[Kind, dict[str, Node]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    # Tables that there are, whatever is wrong with them: a reference to one does not dangle.
    named: dict[Kind, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    # For nodes that URLs became: the label of the table where that URL is.
    labels: dict[tuple[Kind, str], str] = field(default_factory=dict)

    def graph(self) -> Graph:
        return Graph(self.nodes["blobs"], self.nodes["directories"], self.nodes["path_infos"])

    def label(self, kind: Kind, name: str) -> str:
        return self.labels.get((kind, name)) or label_of(kind, name)

    def load(self, kind: Kind, tables: Mapping[str, object], written: object) -> None:
        """Reads all tables of one kind; `written` is what the file has in their place."""
        section = SECTIONS[kind]
        if self.whole and written is None:
            self.sections.mistake(
                f"[{section}]", "", f"is missing: the long form needs all of {_all_roots()}"
            )
        elif self.whole and isinstance(written, dict) and ROOT not in tables:
            self.sections.mistake(
                f"[{section}]",
                "",
                f'has no node called "root", which is the one that is served: add [{section}.root]',
            )
        for name, table in tables.items():
            self.named[kind].add(name)
            label = label_of(kind, name)
            if not isinstance(table, dict):
                self.sections.mistake(
                    label, "", f'must be a table: write "{label}" on a line of its own'
                )
                continue
            if is_service_url(name) or not name or not name.isprintable() or len(name) > 255:
                self.sections.mistake(
                    label, "", "is no name for a node: use up to 255 printable characters, no ://"
                )
            if (node := self._node(kind, label, table)) is not None:
                self.nodes[kind][name] = node

    def _node(self, kind: Kind, label: str, table: Mapping[str, object]) -> Node | None:
        model = self._model(kind, label, table)
        if model is None:
            return None
        table = dict(table)
        written = {}
        for alias, key in model.aliases.items():
            if alias in table and key in table:
                self.sections.mistake(label, alias, f"is another word for {key}: keep one of them")
            elif alias in table:
                written[key] = alias
        renamed = {model.aliases.get(key, key): value for key, value in table.items()}
        found = len(self.sections.mistakes)
        node = self.sections.section(model, label, renamed)
        if isinstance(node, NixNode):
            for key, text in check_connection(table, "base_url"):
                self.sections.mistake(label, key, text)
        self.sections.mistakes[found:] = [
            replace(mistake, key=written.get(mistake.key, mistake.key))
            for mistake in self.sections.mistakes[found:]
        ]
        return node

    def _model(self, kind: Kind, label: str, table: Mapping[str, object]) -> type[Node] | None:
        """The model that the table's `type` calls for."""
        types = NODE_TYPES[kind]
        name = table.get("type")
        if not isinstance(name, str):
            text = "is missing" if "type" not in table else f"{quote(name)} is not a type"
            self.sections.mistake(label, "type", f"{text}: write one of {_listed(types)}")
            return None
        if name in types:
            return types[name]
        if name in REFUSED_TYPES[kind]:
            self.sections.mistake(label, "type", f"{quote(name)} {REFUSED_TYPES[kind][name]}")
            return None
        try:
            found = find_node_type(name)
        except ValueError as error:
            self.sections.mistake(label, "type", str(error))
            return None
        if found is not None and found.maker(kind) is not None:
            return found.model
        elsewhere = [
            f"[{SECTIONS[other]}]"
            for other in KINDS
            if name in NODE_TYPES[other] or (found is not None and found.maker(other) is not None)
        ]
        if elsewhere:
            text = f"{quote(name)} is for {' and '.join(elsewhere)} only: write one of "
            self.sections.mistake(label, "type", text + _listed(types))
        else:
            known = [*types, *(other for other in installed() if other not in types)]
            self.sections.mistake(label, "type", unknown_choice(name, known))
        return None

    def resolve(self) -> None:
        """Makes nodes of URLs, and notes names that nothing has."""
        ahead: list[tuple[Kind, str, int]] = [
            (kind, name, 0) for kind in KINDS for name in self.nodes[kind]
        ]
        while ahead:
            kind, name, depth = ahead.pop(0)
            node = self.nodes[kind][name]
            label = self.label(kind, name)
            changes: dict[str, Any] = {}
            for key, other, value in _references(kind, node):
                names = []
                for number, each in enumerate((value,) if isinstance(value, str) else value, 1):
                    where = "" if isinstance(value, str) else f"#{number}: "
                    if is_service_url(each):
                        made = None
                        if depth >= _DEEPEST_URL:
                            text = f"{where}{quote(each)} has too many URLs in one another"
                            self.sections.mistake(label, key, text)
                        else:
                            made = self._of_url(other, each, label, key, where)
                        if made is not None:
                            own = f"{name}.{key}" + (f"-{number}" if where else "")
                            own = free_name(own, self.named[other])
                            self.named[other].add(own)
                            self.nodes[other][own] = made
                            self.labels[other, own] = label
                            ahead.append((other, own, depth + 1))
                            each = own
                    elif each not in self.named[other] and each != ROOT:
                        # That there is no root was noted already.
                        self.sections.mistake(label, key, where + self._nobody(other, each))
                    names.append(each)
                changes[key] = names[0] if isinstance(value, str) else tuple(names)
            self.nodes[kind][name] = node.model_copy(update=changes)

    def _of_url(self, kind: Kind, url: str, label: str, key: str, where: str) -> Node | None:
        try:
            table = table_of_url(kind, url)
            model = NODE_TYPES[kind][str(table["type"])]
            return model.model_validate(table, context={"folder": self.sections.folder})
        except ValidationError as error:
            for mistake in explained(error, model):
                text = f"{where}{quote(url)}: {mistake.key}: {mistake.text}"
                self.sections.mistake(label, key, text)
        except ValueError as error:
            self.sections.mistake(label, key, f"{where}{error}")
        return None

    def _nobody(self, kind: Kind, name: str) -> str:
        section = SECTIONS[kind]
        if name.startswith("&") and name[1:] in self.named[kind]:
            return f'names {quote(name)}: write "{name[1:]}", without the &'
        return f"names {quote(name)}, and no node of [{section}] is called that: " + (
            f"the nodes there are {', '.join(sorted(map(quote, self.named[kind])))}"
            if self.named[kind]
            else f"add [{section}.{name}]"
        )


def _references(kind: Kind, node: Node) -> Iterator[tuple[str, Kind, str | tuple[str, ...]]]:
    for key in node.references:
        yield key, kind, getattr(node, key)
    for key, other, name in node.content():
        yield key, other, name


def _check_graph(sections: Sections, graph: Graph, loader: _Loader) -> None:
    order = [(kind, name) for kind, name, _ in graph.nodes()]
    found = sorted(circles(graph), key=lambda circle: order.index(circle[0]))
    for circle in found:
        (kind, name), *_ = circle
        told = " → ".join(each for _, each in circle)
        sections.mistake(
            loader.label(kind, name), "", f"{told} is a circle: no node can be built over itself"
        )
    if not found and (place := next(too_deep(graph), None)) is not None:
        sections.mistake(
            loader.label(*place), "", "stands on too many nodes, each over the next: use fewer"
        )


def _with_keys_of(daemon: Daemon, graph: Graph) -> Graph:
    """`graph`, with the daemon's keys trusted by every binary cache, as it says of them."""
    if not daemon.public_keys:
        return graph
    trusting = {
        name: node.model_copy(
            update={"public_keys": (*(node.public_keys or ()), *daemon.public_keys)}
        )
        if isinstance(node, NixNode)
        else node
        for name, node in graph.path_infos.items()
    }
    return replace(graph, path_infos=trusting)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _all_roots() -> str:
    *most, last = [f"[{section}.root]" for section in SECTIONS.values()]
    return f"{', '.join(most)} and {last}"
