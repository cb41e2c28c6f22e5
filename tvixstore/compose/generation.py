"""What was built of one graph, and who still uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tvixstore.compose.graph import Graph
from tvixstore.compose.health import UpstreamHealth
from tvixstore.compose.model import Store
from tvixstore.compose.nodes import LocalNode
from tvixstore.compose.parts import NODE, Part
from tvixstore.extras import CachedExtras
from tvixstore.http import Inbox
from tvixstore.nar import NarIdentities
from tvixstore.pathinfo import PathInfoService
from tvixstore.policy.uses import Uses
from tvixstore.tree import Content
from tvixstore.upkeep import Upkeep

if TYPE_CHECKING:
    from tvixstore.compose.config import Config


@dataclass(eq=False)
class Generation:
    """A request belongs to the generation that it began in, and counts in its `uses` to its end:
    what it was given is closed only after that."""

    config: Config
    graph: Graph
    path_infos: PathInfoService
    content: Content
    # What the NARs of trees in `content` are known by.
    nars: NarIdentities
    # Where what is uploaded over HTTP goes.
    inbox: Inbox
    # Realisations, logs and the like, its own and its substituters'.
    extras: CachedExtras
    # Of what is kept in the daemon's state.
    upkeep: Upkeep | None
    # The substituters, by name.
    health: dict[str, UpstreamHealth]
    # Where its stores are.
    places: set[Path]
    parts: set[Part]
    uses: Uses = field(default_factory=Uses)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reload came to: nodes by name, and settings that count from the next start only."""

    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    # Keys that are not of nodes, or that a node need not be another one for.
    settings: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    # Whether anything at all is other than before, nodes or settings.
    any: bool = True


def compare(old: Generation, new: Generation) -> Changes:
    """What became of the nodes of `old`."""
    before, after = _nodes(old), _nodes(new)
    both = before.keys() & after.keys()
    kept = {key for key in both if before[key] is after[key]}
    changed = both - kept
    before_this, after_this = _settings(old), _settings(new)
    settings = {
        key
        for place in before_this.keys() & after_this.keys()
        for key, value in after_this[place].items()
        if value != before_this[place][key]
    }
    return Changes(
        kept=_names(kept),
        added=_names(after.keys() - before.keys()),
        removed=_names(before.keys() - after.keys()),
        changed=_names(changed),
        settings=tuple(sorted(settings)),
        any=bool(settings or changed) or before.keys() != after.keys(),
    )


def _settings(generation: Generation) -> dict[object, dict[str, object]]:
    """What is said beside what nodes are made of: of the daemon, and of each place of a store."""
    config = generation.config
    said: dict[object, dict[str, object]] = {
        "daemon": dict(config.daemon),
        "store": {key: getattr(config.store, key) for key in Store.model_fields},
    }
    for _, _, node in generation.graph.nodes():
        if isinstance(node, LocalNode):
            said[node.path] = {key: getattr(node, key) for key in Store.model_fields}
    return said


def _nodes(generation: Generation) -> dict[tuple[str, str], Part]:
    found: dict[tuple[str, str], Part] = {}
    for part in generation.parts:
        match part.key:
            case (what, str(kind), str(name)) if what == NODE:
                found[kind, name] = part
    return found


def _names(keys: set[tuple[str, str]]) -> tuple[str, ...]:
    """Path infos are called by their names alone: everybody knows substituters by those."""
    return tuple(
        sorted(name if kind == "path_infos" else f"{name} ({kind})" for kind, name in keys)
    )
