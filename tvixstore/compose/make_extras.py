"""Extras of a composition: its own, and those of the binary caches below its root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tvixstore.compose.beside import Beside
from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.nodes import (
    BreakerNode,
    CacheNode,
    FallbackNode,
    NixNode,
    OptionalNode,
    RaceNode,
    RetryNode,
)
from tvixstore.extras import CachedExtras, ExtrasSource, LocalExtras, SubstitutedExtras
from tvixstore.nix import KeyRing
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.retry import Retry

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


@dataclass(frozen=True, slots=True)
class _Policies:
    """What stands around a node, as far as it concerns extras."""

    breaker: Breaker | None = None
    retry: Retry = Retry(1)
    optional: bool = False


def make_extras(builder: Builder, kept: Beside) -> CachedExtras:
    """The table of those `kept` here, in front of the `nix` nodes below the root, whose services
    are built already.
    """
    near = builder.share(
        "local extras", lambda: LocalExtras(kept.table, builder.content(), kept.roots), kept
    )

    def make() -> CachedExtras:
        # All that it is asked for there are others in another graph, so this is another one, too.
        daemon = builder.daemon
        far = SubstitutedExtras(
            _Sources(builder).below(ROOT, _Policies()), daemon.negative_ttl, daemon.lookup_timeout
        )
        extras = CachedExtras(near, far)
        builder.closing_services.push_async_callback(extras.aclose)
        return extras

    return builder.share("extras", make, object())


class _Sources:
    """The graph of path infos, flattened: classes in the order in which they are asked."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._graph: Graph = builder.graph
        self._seen: set[str] = set()

    def below(self, name: str, policies: _Policies) -> Sequence[Sequence[ExtrasSource]]:
        node = self._graph.path_infos.get(name)
        match node:
            case NixNode():
                return self._leaf(name, node, policies)
            case CacheNode():
                return [*self.below(node.near, policies), *self.below(node.far, policies)]
            case FallbackNode():
                return [each for name in node.members for each in self.below(name, policies)]
            case RaceNode():
                classes = [each for name in node.members for each in self.below(name, policies)]
                members = [member for each in classes for member in each]
                return [members] if members else []
            case RetryNode():
                retry = Retry(node.attempts, node.min_delay, node.max_delay, reconnects=False)
                policies = replace(policies, retry=retry)
            case BreakerNode():
                policies = replace(policies, breaker=self._builder.breakers.get(name))
            case OptionalNode():
                policies = replace(policies, optional=True)
        inner = getattr(node, "inner", None)
        return self.below(inner, policies) if isinstance(inner, str) else []

    def _leaf(
        self, name: str, node: NixNode, policies: _Policies
    ) -> Sequence[Sequence[ExtrasSource]]:
        # Two ways may lead to one cache; it is asked by the first.
        upstream = self._builder.upstreams.get(name)
        if name in self._seen or upstream is None:
            return []
        self._seen.add(name)
        source = ExtrasSource(
            name,
            upstream,
            None if node.public_keys is None else KeyRing(node.public_keys),
            self._builder.pools,
            policies.breaker,
            policies.retry,
            policies.optional,
        )
        return [[source]]
