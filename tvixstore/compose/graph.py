"""A composition as a graph of named nodes, one set of names a kind of service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvixstore.compose.nodes import Node

ROOT = "root"


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by name. Each kind has one called `root`, which is what the front doors see."""

    blobs: Mapping[str, Node]
    directories: Mapping[str, Node]
    path_infos: Mapping[str, Node]
