"""Putting a graph together from parts, those of other graphs as far as they are unchanged.

It is this that notes what a part asks for while it is made, and that finds out whether all of that
is the same in another graph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Self, TypeVar, cast

from tvixstore.compose.graph import Graph
from tvixstore.compose.model import Daemon
from tvixstore.compose.nodes import Kind, Node
from tvixstore.compose.parts import NODE, Part, node_key, of_node

Service = TypeVar("Service")


class Assembly:
    """The parts of `graph`. Its owner closes those in `made`, also if making one fails."""

    def __init__(self, daemon: Daemon, graph: Graph, before: Sequence[Part]) -> None:
        """What of `before`, parts of other graphs, is unchanged in this one is taken over."""
        self.graph = graph
        self._daemon = daemon
        # The parts of this graph, those made for it, and what was asked for from outside.
        self.parts: dict[Hashable, Part] = {}
        self.made: list[Part] = []
        self.tops: list[Part] = []
        self._before: dict[Hashable, list[Part]] = {}
        for part in before:
            self._before.setdefault(part.key, []).append(part)
        # Parts of before that are known to be others here.
        self._changed: set[Part] = set()
        # Those being made: each is built over the next.
        self._making: list[Part] = []

    @property
    def daemon(self) -> Daemon:
        """What `[daemon]` says. A part that is being made is of the keys that it looks at."""
        return cast("Daemon", _Looked(self)) if self._making else self._daemon

    @property
    def closing_services(self) -> AsyncExitStack:
        """Closed with what is being made, when nobody asks it anything any more."""
        return self._making[-1].services

    @property
    def closing_upstreams(self) -> AsyncExitStack:
        """Closed after that, when no download needs it any more: connections."""
        return self._making[-1].upstreams

    def share(self, key: Hashable, make: Callable[[], Service], made_of: object = None) -> Service:
        """The service that was made for `key` before, of the same, or else a new one."""
        service: Service = self._part(key, made_of, make).service
        return service

    def shared(self, key: Hashable) -> Any | None:
        """The service that was made for `key`, if one was."""
        part = self.parts.get(key)
        return None if part is None else part.service

    def ask(self, question: Callable[[Self], Service]) -> Service:
        """The answer to `question` about this graph. A part being made is another one where the
        answer is."""
        with self._as_owner():
            answer = question(self)
        if self._making:
            self._making[-1].asked.append((question, answer))
        return answer

    def tell(self, table: str, name: str, value: object) -> None:
        """Enters `value` in `health`, `upstreams`, `breakers` or `carrying`, for as long as what is
        being made is part of a graph."""
        self._making[-1].told.append((table, name, value))
        getattr(self, table)[name] = value

    def live(self, change: Callable[[Self], None]) -> None:
        """Has `change` called when this graph takes effect, and when any other does of which what
        is being made is a part: for what it is told and does not have to be another one for."""
        self._making[-1].live.append(change)

    def take_effect(self, parts: Collection[Part]) -> None:
        """This is the graph that counts from now on, made of `parts`."""
        # In the order in which they are built over each other.
        for part in self.parts.values():
            if part in parts:
                for change in part.live:
                    change(self)

    def part_of(self, kind: Kind, name: str) -> Part | None:
        """The part that the node of that name is, once it is built."""
        return self.parts.get(node_key(kind, name))

    def wrapped(self, kind: Kind, name: str) -> list[tuple[str, Node]]:
        """The node of that name, and those that it wraps, as long as each wraps just one."""
        found: list[tuple[str, Node]] = []
        nodes = self.graph.of(kind)
        while name in nodes and name not in dict(found):
            found.append((name, nodes[name]))
            name = getattr(nodes[name], "inner", "")
        return found

    def node(self, kind: Kind, name: str, node: Node, make: Callable[[], Service]) -> Service:
        service: Service = self._part(node_key(kind, name), of_node(node), make).service
        return service

    def _part(self, key: Hashable, made_of: object, make: Callable[[], Any]) -> Part:
        part = self.parts.get(key)
        if part is None or part.made_of != made_of:
            part = self._taken_over(key, made_of) or self._new(key, made_of, make)
        if self._making:
            self._making[-1].over.append(part)
        else:
            self.tops.append(part)
        return part

    def _taken_over(self, key: Hashable, made_of: object) -> Part | None:
        for part in self._before.get(key, ()):
            if part.made_of == made_of and self._again(part) is part:
                return part
        return None

    def _again(self, part: Part) -> Part | None:
        """`part` of another graph as a part of this one too, if it is unchanged."""
        if (here := self.parts.get(part.key)) is not None:
            return here
        if part in self._changed or not self._is_unchanged(part):
            self._changed.add(part)
            return None
        self.parts[part.key] = part
        for table, name, value in part.told:
            getattr(self, table)[name] = value
        return part

    def _is_unchanged(self, part: Part) -> bool:
        # What is shared is made of what is in its key, or in the node that asks for it.
        match part.key:
            case (str(what), kind, str(name)) if what == NODE:
                node = self.graph.of(cast("Kind", kind)).get(name)
                if node is None or of_node(node) != part.made_of:
                    return False
        with self._as_owner():
            if any(question(self) != answer for question, answer in part.asked):
                return False
        return all(self._again(each) is each for each in part.over)

    def _new(self, key: Hashable, made_of: object, make: Callable[[], Any]) -> Part:
        part = Part(key, made_of)
        self.made.append(part)
        self._making.append(part)
        try:
            part.service = make()
        finally:
            self._making.pop()
        self.parts[key] = part
        return part

    @contextmanager
    def _as_owner(self) -> Iterator[None]:
        """What is asked meanwhile, no part asks."""
        making, self._making = self._making, []
        try:
            yield
        finally:
            self._making = making


class _Looked:
    """`[daemon]` for a part that is being made, which is noted to depend on what it looks at."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly

    def __getattr__(self, key: str) -> Any:
        return self._assembly.ask(lambda assembly: getattr(assembly.daemon, key))
