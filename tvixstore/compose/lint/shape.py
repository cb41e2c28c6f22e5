"""Rules about the shape of a graph: who is over whom."""

from __future__ import annotations

from collections.abc import Iterator

from tvixstore.compose.config import Config
from tvixstore.compose.lint.places import Place, home, nodes, over_members, takes_writes
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.nodes import (
    CacheNode,
    ChaosNode,
    GrpcNode,
    LimitNode,
    LocalNode,
    LruNode,
    MemoryNode,
    MirrorNode,
    NegativeNode,
    ObjectStoreNode,
    RaceNode,
    ShardNode,
)


def unreachable(config: Config) -> Iterator[Mistake]:
    if config.graph is None:
        return
    reachable = config.graph.reachable()
    for place in nodes(config):
        if (place.kind, place.name) not in reachable:
            yield place.says("", "nothing leads from a root to this node")


def single_member(config: Config) -> Iterator[Mistake]:
    for place, _ in over_members(config):
        names: tuple[str, ...] = getattr(place.node, "members", ())
        if len(names) == 1:
            yield place.says(
                "members", f'has "{names[0]}" alone: name another, or put that one in its place'
            )


def same_store(config: Config) -> Iterator[Mistake]:
    """Two members, or two tiers, that come to the same store."""
    for place, members in over_members(config):
        yield from _doubles(place, "members", members)
    for place in nodes(config):
        if isinstance(place.node, CacheNode):
            tiers = [place.at(place.node.near), place.at(place.node.far)]
            yield from _doubles(place, "far", [tier for tier in tiers if tier is not None])


def _doubles(place: Place, key: str, members: list[Place]) -> Iterator[Mistake]:
    seen: dict[object, str] = {}
    for member in members:
        *_, last = member.chain()
        store = home(last.node) or last.name
        if store in seen:
            yield place.says(
                key, f'"{seen[store]}" and "{member.name}" are the same store: keep one'
            )
        seen.setdefault(store, member.name)


def swapped_cache(config: Config) -> Iterator[Mistake]:
    """A cache that asks another machine before this one."""
    for place in nodes(config):
        if not isinstance(place.node, CacheNode):
            continue
        near, far = place.at(place.node.near), place.at(place.node.far)
        if (
            near is not None
            and far is not None
            and isinstance(near.end(), GrpcNode)
            and isinstance(far.end(), LocalNode | MemoryNode | LruNode)
        ):
            yield place.says(
                "near", f'"{near.name}" is elsewhere, and far is on this machine: swap the two'
            )


def unkept(config: Config) -> Iterator[Mistake]:
    """A cache that can keep nothing."""
    for place in nodes(config):
        if isinstance(place.node, CacheNode) and not takes_writes(
            near := place.at(place.node.near)
        ):
            name = place.node.near if near is None else near.name
            yield place.says(
                "near",
                f'"{name}" takes no writes, so nothing is kept: for a store that is only read, '
                "write a fallback",
            )


def forgotten_writes(config: Config) -> Iterator[Mistake]:
    """What is put, and only reaches a tier that forgets it."""
    if not config.daemon.takes_writes():
        return
    for place in nodes(config):
        if isinstance(place.node, CacheNode) and _forgets(place, place.node):
            yield place.says(
                "near",
                f'"{place.node.near}" forgets, and what is put goes nowhere else: '
                "put a cache with a local node near around it",
            )


def _forgets(place: Place, cache: CacheNode) -> bool:
    """Whether near forgets what far, on this machine too, would not."""
    near, far = place.at(cache.near), place.at(cache.far)
    if near is None or far is None:
        return False
    store = near.end()
    if isinstance(store, LruNode):
        return True
    evicts = isinstance(store, LocalNode) and (store.max_size or store.max_age)
    return bool(evicts or isinstance(store, MemoryNode)) and isinstance(
        far.end(), LocalNode | ObjectStoreNode
    )


def closed_member(config: Config) -> Iterator[Mistake]:
    """A member that should get what is put, and takes nothing."""
    for place, members in over_members(config):
        if isinstance(place.node, MirrorNode | ShardNode):
            for member in members:
                if not takes_writes(member):
                    yield place.says(
                        "members", f'"{member.name}" takes no writes: what should be there never is'
                    )


def unrepaired_mirror(config: Config) -> Iterator[Mistake]:
    for place in nodes(config):
        node = place.node
        if isinstance(node, MirrorNode) and not node.repair and node.enough() < len(node.members):
            yield place.says(
                "repair",
                f"is false, and {node.enough()} of {len(node.members)} are enough for a write: "
                "a member that missed one lacks it for good",
            )


def needless_budget(config: Config) -> Iterator[Mistake]:
    for place in nodes(config):
        node = place.node
        if isinstance(node, RaceNode) and not node.hedge and "budget" in node.model_fields_set:
            yield place.says("budget", "is of no use: without a hedge all are asked at once")


def needless_negative(config: Config) -> Iterator[Mistake]:
    for place in nodes(config):
        if not isinstance(place.node, NegativeNode):
            continue
        if place.node.ttl == 0:
            yield place.says("ttl", "is nothing: it remembers nothing; take the node out")
        elif isinstance(place.end(), LocalNode | MemoryNode | LruNode):
            yield place.says(
                "inner", "is on this machine: to ask it costs no more than to remember"
            )


def limit_above_others(config: Config) -> Iterator[Mistake]:
    """A `limit` around something that asks others while it holds a permit."""
    for place in nodes(config):
        if not isinstance(place.node, LimitNode):
            continue
        below = place.at(place.node.inner)
        # A third party's node says nothing of what is below it.
        if below is not None and below.node.references:
            yield place.says(
                "inner",
                f'"{place.node.inner}" is no store itself, and waits for others while it holds a '
                "permit: put the limit around each of them",
            )


def chaos(config: Config) -> Iterator[Mistake]:
    for place in nodes(config):
        node = place.node
        if isinstance(node, ChaosNode):
            lies = node.absent_rate or any(step.startswith("absent") for step in node.script)
            yield place.says(
                "type",
                "chaos lets calls go wrong on purpose"
                + (", and denies what is there: clients remember that" if lies else "")
                + ": take it out after the drill",
            )
