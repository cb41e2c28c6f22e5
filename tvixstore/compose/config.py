"""A checked compose file, in either form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvixstore.compose.graph import Graph
from tvixstore.compose.model import Daemon, Store, Substituter


@dataclass(frozen=True, slots=True)
class Config:
    """What a compose file says; `lower` gives the graph that it stands for."""

    # What messages call it; relative paths are against `folder`.
    name: str
    folder: Path
    daemon: Daemon
    # The short form.
    store: Store = Store()
    substituters: tuple[Substituter, ...] = ()
    # The long form; the two above are empty then.
    graph: Graph | None = None
