"""What a composition is built of, so that a later one can take over what has not changed.

A part is one service, or one thing that services share: a peer, a breaker, a client. While it is
made it is noted what it asked for: other parts, keys of `[daemon]`, facts about the graph. It is
unchanged in another graph if it is made of the same there, and everything that it asked for is the
same; so a change below it, however far, makes it another one. Then the very object is taken over,
with all that it remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from tvixstore.access import version_of
from tvixstore.compose.nodes import Kind, LocalNode, Node

# What the key of a node's part begins with.
NODE: Final = "node"

# Keys that name files which are read once: other files under the same names make other nodes.
_FILES: Final = ("keyfile", "ca_file", "client_cert", "client_key")

_numbers = count()


def node_key(kind: Kind, name: str) -> tuple[str, Kind, str]:
    return (NODE, kind, name)


@dataclass(eq=False, slots=True)
class Part:
    """What was made for `key` of `made_of`, and what is closed with it."""

    key: Hashable
    made_of: object
    service: Any = None
    # What it is built over, and what it went by.
    over: list[Part] = field(default_factory=list)
    asked: list[tuple[Callable[[Any], object], object]] = field(default_factory=list)
    # What it told the assembly: under which name, in which of its tables.
    told: list[tuple[str, str, Any]] = field(default_factory=list)
    # What is set anew whenever a graph that it belongs to takes effect.
    live: list[Callable[[Any], None]] = field(default_factory=list)
    # Closed first, and then, once no download needs them any more, connections.
    services: AsyncExitStack = field(default_factory=AsyncExitStack)
    upstreams: AsyncExitStack = field(default_factory=AsyncExitStack)
    number: int = field(default_factory=lambda: next(_numbers))

    def __repr__(self) -> str:
        return f"Part({self.key!r})"


def of_node(node: Node) -> object:
    """What a node's part is made of: what makes another one of it if it changes."""
    if isinstance(node, LocalNode):
        # What else is said of a store holds for the open one from then on (`stores.py`).
        return (type(node), node.path.resolve(), *node.content())
    return (node, *files_of(node))


def files_of(node: Node) -> list[object]:
    """Which files the keys of `node` name, beyond what they are called."""
    paths = [getattr(node, key, None) for key in _FILES]
    return [version_of(path) for path in paths if path is not None]


def below(tops: Iterable[Part]) -> set[Part]:
    """`tops`, and everything that they are built over."""
    found: set[Part] = set()
    ahead = list(tops)
    while ahead:
        part = ahead.pop()
        if part not in found:
            found.add(part)
            ahead += part.over
    return found


async def close_services(parts: Collection[Part]) -> None:
    """Ends what they do by themselves: what was made last comes first."""
    await _close([part.services for part in _oldest_first(parts)])


async def close_upstreams(parts: Collection[Part]) -> None:
    """Closes their connections."""
    await _close([part.upstreams for part in _oldest_first(parts)])


async def _close(stacks: Iterable[AsyncExitStack]) -> None:
    async with AsyncExitStack() as closing:
        # From the last to the first, and whatever one of them raises, the others are closed.
        for stack in stacks:
            closing.push_async_callback(stack.aclose)


def _oldest_first(parts: Collection[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: part.number)
