"""What the policies of nodes are made of, the same for every kind of service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tvixstore.compose.nodes import (
    BreakerNode,
    ChaosNode,
    Kind,
    LimitNode,
    RaceNode,
    RetryNode,
    ShardNode,
    TimeoutNode,
)
from tvixstore.compose.script import FAULTS, parse_step
from tvixstore.log import Logger
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos
from tvixstore.policy.hedge import Budget, Hedging
from tvixstore.policy.limit import Limit
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder

log = Logger("tvixstore.compose.make_policies")


def timeout_of(builder: Builder, kind: Kind, node: TimeoutNode) -> Timeout:
    """An overall time only where something below makes attempts; else a call is the one attempt."""
    if node.overall is None or builder.graph.repeats(kind, node.inner):
        return Timeout(node.attempt, node.overall)
    return Timeout(min(node.attempt, node.overall))


def retry_of(name: str, node: RetryNode) -> Retry:
    return Retry(node.attempts, node.min_delay, node.max_delay, name=shown(name))


def shown(member: str) -> str:
    """What a node is called in logs and errors: `mirror`, not `mirror/breaker`."""
    return member.partition("/")[0]


def breaker_of(
    kind: Kind,
    name: str,
    node: BreakerNode,
    on_change: Callable[[bool, str], None] | None = None,
) -> Breaker:
    """A breaker that says when it opens and closes: to `on_change`, or else to the log."""

    def changed(is_open: bool, reason: str) -> None:
        if is_open:
            log.warning("breaker.open", node=name, kind=kind, reason=reason)
        else:
            log.info("breaker.closed", node=name, kind=kind)

    return Breaker(node.failures, node.open, on_change=on_change or changed, name=shown(name))


def hedging_of(node: RaceNode) -> Hedging:
    return Hedging(node.hedge, Budget(node.budget))


def limit_of(name: str, node: LimitNode) -> Limit:
    return Limit.of(node.concurrency, node.rate, name)


def placement_of(node: ShardNode) -> Rendezvous:
    return Rendezvous(node.members, [node.weights.get(name, 1.0) for name in node.members])


def chaos_of(kind: Kind, name: str, node: ChaosNode) -> Chaos:
    """Nodes with the same seed meet different faults, each always the same."""
    rates = node.rates()
    return Chaos(
        f"{node.seed} {kind} {name}",
        {fault: rates[fault] for fault in FAULTS if fault in rates},
        node.latency,
        [parse_step(step) for step in node.script],
    )
