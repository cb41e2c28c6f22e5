"""A composition as a graph: the long form is one, the short form is lowered to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from tvixstore.compose.config import Config
from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.model import Daemon, Substituter
from tvixstore.compose.nodes import (
    BreakerNode,
    CacheNode,
    CountersigningNode,
    FallbackNode,
    GrpcNode,
    GrpcPathInfoNode,
    LimitNode,
    LocalNode,
    LocalPathInfoNode,
    NamesNode,
    NegativeNode,
    NixNode,
    Node,
    NothingNode,
    OptionalNode,
    RaceNode,
    RetryNode,
    SignatureRequiredNode,
    TimeoutNode,
    VerifyPathInfoNode,
)
from tvixstore.compose.short import free_name
from tvixstore.compose.values import is_grpc_url
from tvixstore.nix import PublicKey

LOCAL = "local"
# Failures in a row that open the breaker of an optional substituter, and of any other.
_OPTIONAL_FAILURES = 1
_FAILURES = 5


def lower(config: Config) -> Graph:
    """The graph that `config` stands for.

    Every substituter becomes breaker(retry(timeout(nix))), those of equal priority race, classes
    of priority fall back in order, what is absent is remembered, and the local store caches.
    Other daemons stand where binary caches do, verified; and their blobs and Directories behind the
    local ones, from where what is read of them is kept. While `offline`, there are none of either.

    In either form, what `[daemon]` says of signatures stands on top of the path infos.
    """
    if config.graph is None:
        graph = _lowered(config)
    else:
        graph = _cut_off(config.graph) if config.daemon.offline else config.graph
    return _with_signatures(graph, config)


def _with_signatures(graph: Graph, config: Config) -> Graph:
    """`graph` with what signs on top, and above that what looks at puts before they are signed."""
    daemon = config.daemon
    if daemon.sign_with is not None:
        signing = CountersigningNode(inner=graph.served, keyfile=daemon.sign_with)
        graph = _under(graph, f"{ROOT}/signed", signing)
    if daemon.require_signature:
        required = SignatureRequiredNode(inner=graph.served, public_keys=daemon.require_signature)
        graph = _under(graph, f"{ROOT}/required", required)
    return graph


def _under(graph: Graph, name: str, node: Node) -> Graph:
    name = free_name(name, set(graph.path_infos))
    return replace(graph, path_infos={**graph.path_infos, name: node}, served=name)


def _lowered(config: Config) -> Graph:
    """The graph of the short form."""
    store = dict(config.store) | {"path": config.daemon.state}
    enabled = sorted(
        (
            substituter
            for substituter in config.substituters
            if substituter.enabled and not config.daemon.offline
        ),
        key=lambda substituter: substituter.priority,
    )
    local = LocalPathInfoNode.model_validate(store)
    path_infos: dict[str, Node] = {ROOT: local}
    if enabled:
        upstreams: dict[str, Node] = {}
        far = _upstreams(enabled, config.daemon, upstreams)
        path_infos = {ROOT: CacheNode(near=LOCAL, far=far), LOCAL: local, **upstreams}
    content = _content(LocalNode.model_validate(store), enabled)
    return Graph(content, content, path_infos)


def _content(local: LocalNode, enabled: Sequence[Substituter]) -> dict[str, Node]:
    """Where blobs and Directories are: here, and at the other daemons among the substituters."""
    daemons = [substituter for substituter in enabled if is_grpc_url(substituter.url)]
    if not daemons:
        return {ROOT: local}
    nodes: dict[str, Node] = {}
    names = tuple(_content_of(substituter, nodes) for substituter in daemons)
    far = names[0]
    if len(names) > 1:
        far = f"{ROOT}/fallback"
        nodes[far] = FallbackNode(members=names)
    return {ROOT: CacheNode(near=LOCAL, far=far), LOCAL: local, **nodes}


def _content_of(substituter: Substituter, nodes: dict[str, Node]) -> str:
    """Adds what a daemon has of blobs, or Directories, to `nodes`; the name of the outermost."""
    name = substituter.name
    nodes[name] = GrpcNode(**_reached(substituter))
    if substituter.rate is None:
        return name
    nodes[f"{name}/limit"] = LimitNode(inner=name, rate=substituter.rate)
    return f"{name}/limit"


def _cut_off(graph: Graph) -> Graph:
    """`graph` with nothing in place of what is on other machines."""
    nothing = NothingNode()

    def cut(nodes: Mapping[str, Node]) -> dict[str, Node]:
        return {
            name: nothing if isinstance(node, GrpcNode | NixNode) else node
            for name, node in nodes.items()
        }

    return replace(
        graph,
        blobs=cut(graph.blobs),
        directories=cut(graph.directories),
        path_infos=cut(graph.path_infos),
    )


def _upstreams(ordered: Sequence[Substituter], daemon: Daemon, nodes: dict[str, Node]) -> str:
    """Adds the nodes of all substituters to `nodes`; the name of the one above them."""
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
    failures = substituter.breaker_failures
    if failures is None:
        failures = _OPTIONAL_FAILURES if substituter.optional else _FAILURES
    upstream = _daemon if is_grpc_url(substituter.url) else _binary_cache
    inner = upstream(substituter, daemon, nodes)
    if substituter.only or substituter.excepted:
        nodes[f"{name}/names"] = NamesNode(
            inner=inner, only=substituter.only, but=substituter.excepted
        )
        inner = f"{name}/names"
    nodes[f"{name}/timeout"] = TimeoutNode(inner=inner, attempt=substituter.timeout)
    nodes[f"{name}/retry"] = RetryNode(inner=f"{name}/timeout", attempts=substituter.retries + 1)
    nodes[f"{name}/breaker"] = BreakerNode(
        inner=f"{name}/retry", failures=failures, open=substituter.breaker_open
    )
    if not substituter.optional:
        return f"{name}/breaker"
    nodes[f"{name}/optional"] = OptionalNode(inner=f"{name}/breaker", name=name)
    return f"{name}/optional"


def _binary_cache(substituter: Substituter, daemon: Daemon, nodes: dict[str, Node]) -> str:
    connection = {
        key: getattr(substituter, key)
        for key in NixNode.model_fields.keys() & Substituter.model_fields.keys()
    }
    connection["public_keys"] = (
        None if substituter.unsigned else (*substituter.public_keys, *daemon.public_keys)
    )
    nodes[substituter.name] = NixNode.model_validate(connection | {"base_url": substituter.url})
    return substituter.name


def _daemon(substituter: Substituter, daemon: Daemon, nodes: dict[str, Node]) -> str:
    name = substituter.name
    nodes[name] = GrpcPathInfoNode(**_reached(substituter))
    if substituter.unsigned:
        # Signatures apart, what another machine says of a tree is rendered and hashed here first.
        keys: tuple[PublicKey, ...] = ()
    else:
        keys = (*substituter.public_keys, *daemon.public_keys)
    nodes[f"{name}/verify"] = VerifyPathInfoNode(inner=name, public_keys=keys)
    return f"{name}/verify"


def _reached(substituter: Substituter) -> dict[str, Any]:
    """The keys of a node that is another daemon."""
    keys = ("url", "token_file", "ca_file")
    return {key: getattr(substituter, key) for key in keys}
