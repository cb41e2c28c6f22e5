"""Nodes that find each other by name: each is made once, and none can be built over itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tvixstore.compose.mistakes import Mistake, config_error
from tvixstore.compose.nodes import Node
from tvixstore.errors import ConfigError

Service = TypeVar("Service")


@dataclass(eq=False)
class Names(Generic[Service]):
    """The services of one kind by name, each made when it is first asked for."""

    section: str
    nodes: Mapping[str, Node]
    make: Callable[[str, Any], Service]
    # For messages.
    file: str
    built: dict[str, Service] = field(default_factory=dict)
    way: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> Service:
        if name in self.built:
            return self.built[name]
        if name in self.way:
            circle = " → ".join([*self.way[self.way.index(name) :], name])
            raise self._error(f"{circle} is a circle: no node can be built over itself")
        node = self.nodes.get(name)
        if node is None:
            raise self._error(f'names "{name}", and no node is called that')
        self.way.append(name)
        try:
            self.built[name] = self.make(name, node)
        finally:
            self.way.pop()
        return self.built[name]

    def _error(self, text: str) -> ConfigError:
        section = f"[{self.section}.{self.way[-1]}]" if self.way else f"[{self.section}]"
        return config_error(self.file, [Mistake(section, "", text)])
