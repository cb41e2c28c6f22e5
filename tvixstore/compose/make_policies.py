"""What the policies of nodes are made of, the same for every kind of service.

All take the builder, the kind, and the node with its name, as `Making` hands them over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tvixstore.compose.nodes import (
    BreakerNode,
    ChaosNode,
    Kind,
    LimitNode,
    NegativeNode,
    RaceNode,
    RetryNode,
    ShardNode,
    TimeoutNode,
)
from tvixstore.compose.parts import of_node
from tvixstore.compose.script import FAULTS, parse_step
from tvixstore.log import Logger
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos
from tvixstore.policy.hedge import Budget, Hedging
from tvixstore.policy.latency import Latencies
from tvixstore.policy.limit import Limit
from tvixstore.policy.negative import Absences
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder

log = Logger("tvixstore.compose.make_policies")


def timeout_of(builder: Builder, kind: Kind, name: str, node: TimeoutNode) -> Timeout:
    """An overall time only where something below makes attempts; else a call is the one attempt."""
    if node.overall is None or builder.graph.repeats(kind, node.inner):
        return Timeout(node.attempt, node.overall)
    return Timeout(min(node.attempt, node.overall))


def retry_of(builder: Builder, kind: Kind, name: str, node: RetryNode) -> Retry:
    return Retry(node.attempts, node.min_delay, node.max_delay, name=shown(name))


def shown(member: str) -> str:
    """What a node is called in logs and errors: `mirror`, not `mirror/breaker`."""
    return member.partition("/")[0]


def breaker_of(
    builder: Builder,
    kind: Kind,
    name: str,
    node: BreakerNode,
    on_change: Callable[[bool, str], None] | None = None,
) -> Breaker:
    """A breaker that says when it opens and closes: to `on_change`, or else to the log.

    It stays as it is as long as what it guards is asked the same place in the same way.
    """

    def changed(is_open: bool, reason: str) -> None:
        if is_open:
            log.warning("breaker.open", node=name, kind=kind, reason=reason)
        else:
            log.info("breaker.closed", node=name, kind=kind)

    def make() -> Breaker:
        return Breaker(node.failures, node.open, on_change=on_change or changed, name=shown(name))

    below = builder.wrapped(kind, node.inner)
    last = below[-1][1] if below else None
    if last is None or last.neighbours():
        # Of several, or of what others see to: it is as new as what it is around.
        return make()
    guarded = [(name, of_node(each)) for name, each in below]
    return builder.share(("breaker", kind, name), make, (node, guarded))


def hedging_of(
    builder: Builder, kind: Kind, name: str, node: RaceNode, shown: Sequence[str] | None = None
) -> Hedging:
    """What is known of the members' latencies stays known of those that stay."""
    hedging = Hedging(node.hedge, Budget(node.budget))
    for member, known_as in zip(node.members, shown or node.members, strict=True):
        known = builder.share(
            ("latencies", kind, name, member), lambda: Latencies(), builder.part_of(kind, member)
        )
        hedging.know(known_as, known)
    return hedging


def limit_of(builder: Builder, kind: Kind, name: str, node: LimitNode) -> Limit:
    """Old calls and new ones count together, as long as the limit is of the same."""
    return builder.share(
        ("limit", kind, name),
        lambda: Limit.of(node.concurrency, node.rate, name),
        (node, [(name, of_node(each)) for name, each in builder.wrapped(kind, node.inner)]),
    )


def absences_of(builder: Builder, kind: Kind, name: str, node: NegativeNode) -> Absences[Any]:
    """Hears, for as long as it counts, of what has come."""
    absences: Absences[Any] = Absences(node.ttl, node.capacity)
    arrivals = builder.arriving.of(kind)
    arrivals.subscribe(absences)
    builder.closing_services.callback(arrivals.unsubscribe, absences)
    return absences


def placement_of(builder: Builder, kind: Kind, name: str, node: ShardNode) -> Rendezvous:
    return Rendezvous(node.members, [node.weights.get(name, 1.0) for name in node.members])


def chaos_of(builder: Builder, kind: Kind, name: str, node: ChaosNode) -> Chaos:
    """Nodes with the same seed meet different faults, each always the same."""
    rates = node.rates()
    return Chaos(
        f"{node.seed} {kind} {name}",
        {fault: rates[fault] for fault in FAULTS if fault in rates},
        node.latency,
        [parse_step(step) for step in node.script],
    )
