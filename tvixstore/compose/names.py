"""Nodes that find each other by name, none of which can be built over itself."""

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
    """The services of one kind by name; `make` is asked for them, and sees to it that each is made
    once."""

    section: str
    nodes: Mapping[str, Node]
    make: Callable[[str, Any], Service]
    # For messages.
    file: str
    way: list[str] = field(default_factory=list)

    def __call__(self, name: str) -> Service:
        if name in self.way:
            circle = " → ".join([*self.way[self.way.index(name) :], name])
            raise self._error(f"{circle} is a circle: no node can be built over itself")
        node = self.nodes.get(name)
        if node is None:
            raise self._error(f'names "{name}", and no node is called that')
        self.way.append(name)
        try:
            return self.make(name, node)
        finally:
            self.way.pop()

    def _error(self, text: str) -> ConfigError:
        section = f"[{self.section}.{self.way[-1]}]" if self.way else f"[{self.section}]"
        return config_error(self.file, [Mistake(section, "", text)])
