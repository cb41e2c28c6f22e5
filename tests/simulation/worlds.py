"""All worlds, by name: each makes a list of a seed, of what went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from tests.simulation.blobs import simulate_blobs
from tests.simulation.copies import simulate_copies
from tests.simulation.infos import simulate_infos
from tests.simulation.paths import simulate_paths
from tests.simulation.shards import simulate_shards
from tests.simulation.trees import simulate_trees
from tests.simulation.world import simulate
from tests.support.leaks import Leak
from tests.support.virtual_clock import Deadlock, now, run
from tvixstore.policy.chaos import Chaos, Outcome

World = Callable[[int], Awaitable[list[str]]]


async def _members(seed: int) -> list[str]:
    return (await simulate(seed)).broken


WORLDS: dict[str, World] = {
    "members": _members,
    "paths": simulate_paths,
    "copies": simulate_copies,
    "blobs": simulate_blobs,
    "trees": simulate_trees,
    "infos": simulate_infos,
    "shards": simulate_shards,
}


def broken_in(name: str, seed: int) -> list[str]:
    """What that world broke of the invariants; nothing, if all is well."""
    return broken_by(lambda: WORLDS[name](seed), f"{name}, seed {seed}")


def broken_by(world: Callable[[], Awaitable[list[str]]], name: str) -> list[str]:
    """What `world` broke; something that it left behind, or that hangs, is among it."""

    async def main() -> list[str]:
        return await world()

    try:
        return run(main())
    except (Leak, Deadlock) as error:
        return [f"{name}: {error}"]


@contextmanager
def traced(tell: Callable[[str], object]) -> Iterator[None]:
    """Tells of each call that a member meets, and of what becomes of it."""
    draw = Chaos.draw

    def told(chaos: Chaos) -> Outcome:
        outcome = draw(chaos)
        tell(f"{now():.6f} s: {chaos.seed}: {outcome.kind} after {outcome.delay:.6f} s")
        return outcome

    Chaos.draw = told  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Chaos.draw = draw  # type: ignore[method-assign]
