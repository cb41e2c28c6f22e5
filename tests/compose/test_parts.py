"""What of one graph is taken over into another: exactly what is the same with all that is below."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.virtual_clock import virtual_clock
from tvixstore.compose import Config, Daemon
from tvixstore.compose.build import Builder
from tvixstore.compose.graph import Graph
from tvixstore.compose.nodes import (
    CacheNode,
    FallbackNode,
    MemoryNode,
    MemoryPathInfoNode,
    NegativeNode,
    Node,
    ReadOnlyNode,
    RetryNode,
    TimeoutNode,
)
from tvixstore.compose.parts import Part, below, node_key
from tvixstore.compose.stores import Stores
from tvixstore.kv import MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.pathinfo import RememberedAnswers
from tvixstore.pathinfo.nix import Fills
from tvixstore.pools import Pools

NAMES = ("root", "a", "b", "c", "d")


def nodes_over(names: tuple[str, ...]) -> st.SearchStrategy[Node]:
    """Nodes that are built over some of `names`."""
    leaf = st.just(MemoryNode())
    if not names:
        return leaf
    name = st.sampled_from(names)
    return st.one_of(
        leaf,
        st.builds(lambda inner: ReadOnlyNode(inner=inner), name),
        st.builds(lambda inner: NegativeNode(inner=inner), name),
        st.builds(
            lambda inner, attempt: TimeoutNode(inner=inner, attempt=attempt),
            name,
            st.sampled_from([1.0, 2.0]),
        ),
        st.builds(lambda inner: RetryNode(inner=inner), name),
        st.builds(lambda near, far: CacheNode(near=near, far=far), name, name),
        st.builds(
            lambda members: FallbackNode(members=tuple(members)),
            st.lists(name, min_size=1, max_size=3, unique=True),
        ),
    )


# No circles: each is built over those behind it.
SOME_NODES = st.fixed_dictionaries(
    {name: nodes_over(NAMES[number + 1 :]) for number, name in enumerate(NAMES)}
)


def daemon_of(**keys: object) -> Daemon:
    return Daemon.model_validate(keys)


def meaning(nodes: dict[str, Node], name: str) -> object:
    """All that makes the node what it is."""
    node = nodes[name]
    forgets = any(isinstance(each, NegativeNode) for each in nodes.values())
    over = [meaning(nodes, neighbour) for _, neighbour in node.neighbours()]
    return name, node, over or forgets


class _House:
    """What builders need."""

    def __init__(self) -> None:
        self.pools, self.metrics = Pools(files=1, cpu=1, dns=1), Metrics()
        self.stores = Stores(self.pools, self.metrics, lambda path: None)
        self.fills = Fills(Path(), self.pools, self.metrics)

    def build(self, blobs: dict[str, Node], daemon: Daemon, before: set[Part]) -> Builder:
        one: dict[str, Any] = {"root": MemoryNode()}
        graph = Graph(blobs, one, {"root": MemoryPathInfoNode()})
        table = MemoryKeyValue()
        builder = Builder(
            Config("test", Path(), daemon),
            graph,
            pools=self.pools,
            metrics=self.metrics,
            stores=self.stores,
            remembered=RememberedAnswers(table),
            calculated=table,
            spool=Path(),
            fills=self.fills,
            before=list(before),
        )
        builder.path_infos("root")
        builder.nars()
        return builder


@settings(max_examples=60)
@given(SOME_NODES, SOME_NODES, st.lists(st.sampled_from(NAMES), unique=True))
@virtual_clock
async def test_a_node_is_taken_over_if_and_only_if_all_below_it_is_the_same(
    first: dict[str, Node], second: dict[str, Node], same: list[str]
) -> None:
    second = {name: first[name] if name in same else node for name, node in second.items()}
    house = _House()
    try:
        old = below(house.build(first, daemon_of(), set()).tops)
        builder = house.build(second, daemon_of(), old)
        new = below(builder.tops)
        assert set(builder.made) == new - old
        by_key = {part.key: part for part in old}
        for part in new:
            match part.key:
                case ("node", "blobs", str(name)):
                    before = by_key.get(node_key("blobs", name))
                    kept = before is not None and meaning(first, name) == meaning(second, name)
                    assert (part is before) == kept, name
    finally:
        house.pools.close()


def looked_at(builder: Builder) -> float:
    return builder.daemon.narinfo_ttl


@virtual_clock
async def test_what_reads_a_key_of_the_daemon_changes_with_it_alone() -> None:
    house = _House()
    try:
        blobs: dict[str, Node] = {"root": MemoryNode()}
        old = below(house.build(blobs, daemon_of(), set()).tops)

        asked = house.build(blobs, daemon_of(), old)
        asked.share("looks", partial(looked_at, asked))
        before = below(asked.tops)
        for daemon, kept in (
            (daemon_of(narinfo_ttl="1s"), False),
            (daemon_of(negative_ttl="1s"), True),
        ):
            again = house.build(blobs, daemon, before)
            again.share("looks", partial(looked_at, again))
            assert (again.parts["looks"] is asked.parts["looks"]) == kept
            assert again.shared("looks") == daemon.narinfo_ttl
    finally:
        house.pools.close()
