"""The short form as a graph: what `[store]` and `[[substituters]]` stand for."""

from __future__ import annotations

from itertools import groupby

from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.model import Config, Daemon, Substituter
from tvixstore.compose.nodes import (
    BreakerNode,
    CacheNode,
    FallbackNode,
    LocalNode,
    LocalPathInfoNode,
    NegativeNode,
    NixNode,
    Node,
    OptionalNode,
    RaceNode,
    RetryNode,
    TimeoutNode,
)

LOCAL = "local"
# Failures in a row that open the breaker of an optional substituter, and of any other.
_OPTIONAL_FAILURES = 1
_FAILURES = 5


def lower(config: Config) -> Graph:
    """The graph that `config` stands for.

    Every substituter becomes breaker(retry(timeout(nix))), those of equal priority race, classes
    of priority fall back in order, what is absent is remembered, and the local store caches.
    """
    store = dict(config.store) | {"path": config.daemon.state}
    local = LocalPathInfoNode.model_validate(store)
    path_infos: dict[str, Node] = {}
    enabled = [substituter for substituter in config.substituters if substituter.enabled]
    if enabled:
        far = _upstreams(enabled, config.daemon, path_infos)
        path_infos = {ROOT: CacheNode(near=LOCAL, far=far), LOCAL: local, **path_infos}
    else:
        path_infos = {ROOT: local}
    content: dict[str, Node] = {ROOT: LocalNode.model_validate(store)}
    return Graph(content, content, path_infos)


def _upstreams(substituters: list[Substituter], daemon: Daemon, nodes: dict[str, Node]) -> str:
    """Adds the nodes of all `substituters` to `nodes`; the name of the one above them."""
    ordered = sorted(substituters, key=lambda substituter: substituter.priority)
    classes = []
    for priority, members in groupby(ordered, key=lambda substituter: substituter.priority):
        names = tuple(_guarded(member, daemon, nodes) for member in members)
        if len(names) == 1:
            classes.append(names[0])
        else:
            race = f"{ROOT}/race-{priority}"
            nodes[race] = RaceNode(members=names, hedge=daemon.hedge)
            classes.append(race)
    fallback, negative = f"{ROOT}/fallback", f"{ROOT}/negative"
    nodes[fallback] = FallbackNode(members=tuple(classes))
    nodes[negative] = NegativeNode(inner=fallback, ttl=daemon.negative_ttl)
    return negative


def _guarded(substituter: Substituter, daemon: Daemon, nodes: dict[str, Node]) -> str:
    """Adds one substituter with the policies around it; the name of the outermost."""
    name = substituter.name
    connection = {
        key: getattr(substituter, key)
        for key in NixNode.model_fields.keys() & Substituter.model_fields.keys()
    }
    connection["public_keys"] = (
        None if substituter.unsigned else (*substituter.public_keys, *daemon.public_keys)
    )
    failures = substituter.breaker_failures
    if failures is None:
        failures = _OPTIONAL_FAILURES if substituter.optional else _FAILURES
    nodes[name] = NixNode.model_validate(connection | {"base_url": substituter.url})
    nodes[f"{name}/timeout"] = TimeoutNode(inner=name, attempt=substituter.timeout)
    nodes[f"{name}/retry"] = RetryNode(inner=f"{name}/timeout", attempts=substituter.retries + 1)
    nodes[f"{name}/breaker"] = BreakerNode(
        inner=f"{name}/retry", failures=failures, open=substituter.breaker_open
    )
    if not substituter.optional:
        return f"{name}/breaker"
    nodes[f"{name}/optional"] = OptionalNode(inner=f"{name}/breaker", name=name)
    return f"{name}/optional"
