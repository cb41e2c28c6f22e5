"""Node types of others, found through the packaging entry-point group `tvixstore.nodes`.

An entry point's name is the `type =` that it stands for, and its object is a `NodeType`. What is
built has the same contract as ours: the conformance suites hold for it, and wrappers go around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from tvixstore.compose.nodes import Kind, Node

if TYPE_CHECKING:
    from tvixstore.blob import BlobService
    from tvixstore.compose.build import Builder
    from tvixstore.directory import DirectoryService
    from tvixstore.pathinfo import PathInfoService

GROUP = "tvixstore.nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeType:
    """One `type =`: its keys, and what makes a service of such a node, for each kind it is for.

    `model` is a subclass of `Node`, a field a key. A maker gets the builder, the node's name and
    the node; it finds its neighbours by `builder.blobs(name)` and so on, and what has to be closed
    goes on `builder.closing_services`. Makers run in the event loop, and should not block. When the
    file is read again, what was made is kept as long as the node, and what its maker got from the
    builder, are the same.
    """

    model: type[Node]
    blobs: Callable[[Builder, str, Any], BlobService] | None = None
    directories: Callable[[Builder, str, Any], DirectoryService] | None = None
    path_infos: Callable[[Builder, str, Any], PathInfoService] | None = None

    def maker(self, kind: Kind) -> Callable[[Builder, str, Any], Any] | None:
        """What makes services of that kind, if there are any."""
        makers: dict[Kind, Callable[[Builder, str, Any], Any] | None] = {
            "blobs": self.blobs,
            "directories": self.directories,
            "path_infos": self.path_infos,
        }
        return makers[kind]


@cache
def installed() -> dict[str, EntryPoint]:
    """What is installed, by type. Reads the metadata of all packages there are, once."""
    return {point.name: point for point in entry_points(group=GROUP)}


@cache
def find_node_type(name: str) -> NodeType | None:
    """The node type of that name, or `None`. Raises `ValueError` for one that cannot be used."""
    point = installed().get(name)
    if point is None:
        return None
    package = point.dist.name if point.dist is not None else point.value
    try:
        found = point.load()
    except Exception as error:
        raise ValueError(
            f'the node type "{name}" of {package} cannot be loaded '
            f"({type(error).__name__}: {error}): repair or remove that package"
        ) from error
    if not isinstance(found, NodeType):
        raise ValueError(f'the node type "{name}" of {package} is no tvixstore.compose.NodeType')
    return found
