"""Worlds of compositions: any nodes over each other, used by many at once, whatever the service.

What a service is made of is its `Kit`. Each world says what its callers do and what may come of it;
what has to hold for all of them is here: that everybody is answered, that nothing is left running,
open or held, and that in the quiet afterwards whatever anybody has is to be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.simulation.shapes import Shape, draw
from tests.support.virtual_clock import now
from tvixstore.metrics import Metrics
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.chaos import Chaos, Kind
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.limit import Limit
from tvixstore.policy.negative import Absences, Arrivals
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.policy.retry import Retry
from tvixstore.policy.timeout import Timeout

ACTIONS = 24
TIMEOUT, ATTEMPTS, PAUSE, OPEN = 2.0, 3, 0.5, 20.0
# Where a member may make others wait, a timeout would have it fail that is well.
PATIENT = 900.0
# Nobody takes longer, however many members stall, for as long as the network lets them.
MOST = 300_000.0

Action = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Kit:
    """The classes of one service. A planted bug is one of them, replaced by a wrong one."""

    store: Callable[[Random], Any]
    chaos: Callable[..., Any]
    announcing: Callable[..., Any]
    limit: Callable[..., Any]
    timeout: Callable[..., Any]
    retry: Callable[..., Any]
    breaker: Callable[..., Any]
    verify: Callable[..., Any] | None
    negative: Callable[..., Any]
    race: Callable[..., Any]
    fallback: Callable[..., Any]
    shard: Callable[..., Any]
    mirror: Callable[..., Any]
    # near, far and where to count.
    cache: Callable[..., Any]
    # Around far of a cache: notes in a list what several ask it for at once, if near takes all.
    alone: Callable[..., Any]
    # What goes wrong with members.
    faults: tuple[Kind, ...]
    placement: Callable[..., Rendezvous] = Rendezvous


@dataclass(eq=False)
class Leaf:
    """A store, what goes wrong with it, and the policies around it."""

    name: str
    store: Any
    chaos: Chaos
    limit: Limit
    service: Any
    healthy: bool


@dataclass(eq=False)
class Composition:
    """What a seed came to; `broken` is what it did wrong."""

    name: str
    shape: Shape
    leaves: dict[str, Leaf]
    root: Any
    closing: list[Callable[[], Awaitable[None]]]
    metrics: Metrics
    broken: list[str] = field(default_factory=list)
    # What somebody is putting right now: nobody knows yet whether it is there.
    arriving: list[Hashable] = field(default_factory=list)
    # What was asked of far for several at once, by what it was.
    crowds: list[str] = field(default_factory=list)

    @property
    def most(self) -> float:
        """Seconds that one short question takes at most; whoever is limited has others wait."""
        if any(leaf.limit.permits is not None for leaf in self.leaves.values()):
            return MOST
        asked = sum(not node.inner for node in self.shape.nodes())
        return asked * (ATTEMPTS * TIMEOUT + (ATTEMPTS - 1) * PAUSE) + 1e-6

    def wrong(self, what: str) -> None:
        self.broken.append(f"{self.name}, at {now():.3f} s: {what}, in {self.shape}")

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""
        for leaf in self.leaves.values():
            leaf.chaos.rates, leaf.chaos.latency, leaf.healthy = {}, 0.0, True


class _Composer:
    def __init__(self, kit: Kit, random: Random, seed: object, verified: bool) -> None:
        self.leaves: dict[str, Leaf] = {}
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self.metrics = Metrics()
        self.crowds: list[str] = []
        self._kit = kit
        self._random = random
        self._seed = seed
        self._verified = verified
        self._arrivals: Arrivals[Any] = Arrivals()

    def make(self, shape: Shape) -> Any:
        if not shape.inner:
            if shape.name not in self.leaves:
                self.leaves[shape.name] = self._leaf(shape.name)
            return self.leaves[shape.name].service
        services = [self.make(each) for each in shape.inner]
        if shape.kind == "cache":
            services[1] = self._kit.alone(services[1], self.crowds, self._takes(shape.inner[0]))
        service = getattr(self, f"_{shape.kind}")(services, [each.name for each in shape.inner])
        if shape.kind in ("mirror", "cache"):
            # Whoever is above is closed first.
            self.closing.insert(0, service.aclose)
        return service

    def _leaf(self, name: str) -> Leaf:
        kit, random = self._kit, self._random
        store = kit.store(random)
        healthy = random.random() < 0.5
        rates: dict[Kind, float] = {}
        if not healthy:
            share = random.choice([0.05, 0.2, 0.33, 1.0])
            rates = dict.fromkeys(kit.faults, share / len(kit.faults))
        chaos = Chaos(f"{self._seed} {name}", rates, 0.0 if healthy else random.choice([0.01, 0.3]))
        limited = random.random() < 0.3
        limit = Limit.of(1, random.choice([None, 5000])) if limited else Limit()
        inner = kit.chaos(store, chaos)
        if limited:
            inner = kit.limit(inner, limit)
        timeout = Timeout(PATIENT if limited else TIMEOUT)
        if random.random() < 0.5:
            inner = kit.retry(kit.timeout(inner, timeout), self._retry())
        else:
            # The other way round, one timeout over all attempts.
            timeout = Timeout(timeout.attempt, 1.5 * timeout.attempt)
            inner = kit.timeout(kit.retry(inner, self._retry()), timeout)
        inner = kit.announcing(inner, self._arrivals)
        if not limited:
            inner = kit.breaker(inner, Breaker(3, OPEN))
        if self._verified and kit.verify is not None:
            inner = kit.verify(inner)
        return Leaf(name, store, chaos, limit, inner, healthy)

    def _retry(self) -> Retry:
        attempts = self._random.randrange(1, ATTEMPTS + 1)
        return Retry(attempts, 0.1, PAUSE, random=Random(self._random.random()))

    def _race(self, members: list[Any], names: list[str]) -> Any:
        delays: list[float | str] = [0.0, 0.02, 0.2, "p95"]
        return self._kit.race(members, names, Hedging(self._random.choice(delays)))

    def _fallback(self, members: list[Any], names: list[str]) -> Any:
        return self._kit.fallback(members, names)

    def _shard(self, members: list[Any], names: list[str]) -> Any:
        weights = [self._random.choice([0.5, 1.0, 3.0]) for _ in names]
        return self._kit.shard(members, names, self._kit.placement(names, weights))

    def _mirror(self, members: list[Any], names: list[str]) -> Any:
        quorum = self._random.randrange(1, len(members) + 1)
        return self._kit.mirror(members, names, quorum, self._random.random() < 0.8)

    def _cache(self, members: list[Any], _: list[str]) -> Any:
        return self._kit.cache(*members, self.metrics)

    def _takes(self, near: Shape) -> bool:
        """Whether near keeps all that it is given: others find it there then."""
        leaves = [self.leaves[leaf.name] for leaf in near.leaves()]
        return all(leaf.healthy and leaf.store.room is None for leaf in leaves)

    def _negative(self, members: list[Any], _: list[str]) -> Any:
        absences: Absences[Any] = Absences(ttl=self._random.choice([0.5, 30.0, 3000.0]))
        self._arrivals.subscribe(absences)
        return self._kit.negative(members[0], absences)


def compose(name: str, kit: Kit, random: Random, verified: bool = True) -> Composition:
    """The composition that `random` draws."""
    shape = draw(random)
    composer = _Composer(kit, random, name, verified)
    root = composer.make(shape)
    return Composition(
        name,
        shape,
        composer.leaves,
        root,
        composer.closing,
        composer.metrics,
        crowds=composer.crowds,
    )


async def drive(world: Composition, random: Random, actions: Sequence[Action]) -> None:
    """Has all of it done, partly at the same time; some leave before they are through."""
    moments = [random.uniform(0.0, 60.0) for _ in range(6)]
    tasks = []
    for action in actions:
        begins = random.choice(moments) + random.choice([0.0, random.expovariate(5.0)])
        leaves = begins + random.expovariate(1.0) if random.random() < 0.2 else None
        tasks.append(asyncio.create_task(_act(action, begins, leaves)))
    await _all(world, tasks)


async def _all(world: Composition, tasks: Sequence[asyncio.Task[None]]) -> None:
    _, hanging = await asyncio.wait(tasks, timeout=MOST)
    if hanging:
        world.wrong(f"{len(hanging)} calls never end")
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _act(action: Action, begins: float, leaves: float | None) -> None:
    await asyncio.sleep(begins)
    task = asyncio.create_task(action())
    if leaves is not None:
        asyncio.get_running_loop().call_at(max(now(), leaves), task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def afterwards(world: Composition, check_all: Action) -> None:
    """What has to hold once everybody has left: `check_all` of what there is, in the quiet."""
    world.calm()
    # What is still on its way comes, breakers may be tried again.
    await asyncio.sleep(MOST)
    quiet = asyncio.create_task(check_all())
    await _all(world, [quiet])
    await asyncio.sleep(MOST)
    running = world.metrics.registry.get_sample_value("tvixstore_fills_running")
    if running:
        world.wrong(f"{running:.0f} fills run")
    for close in world.closing:
        await close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        world.wrong(f"tasks left: {sorted(task.get_name() for task in left)}")
    for leaf in world.leaves.values():
        if still := getattr(leaf.store, "open_streams", 0):
            world.wrong(f"{leaf.name}: {still} streams left open")
        permits = leaf.limit.permits
        if permits is not None and (permits.in_use or permits._waiting):
            world.wrong(f"{leaf.name}: a permit was not given back")
    for crowd in world.crowds:
        world.wrong(f"far was asked by several at once: {crowd}")
