"""Thousands of worlds in which things go wrong, and what holds in all of them.

A seed that fails is had again by `python -m tests.simulation SEED`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.simulation.copies import simulate_copies
from tests.simulation.paths import simulate_paths
from tests.simulation.planted import PLANTED, PLANTED_IN_COPIES, PLANTED_IN_PATHS
from tests.simulation.world import simulate
from tests.support.leaks import Leak
from tests.support.virtual_clock import run

# Each is a world of blobs, one of paths and one of copies: some 30 ms together.
SEEDS = 700
MORE_SEEDS = 10_000
BATCH = 100
# A planted bug has to show within so many.
SOON = 150


def check(seeds: Sequence[int]) -> None:
    for seed in seeds:
        broken = run(simulate(seed)).broken + run(simulate_paths(seed))
        broken += run(simulate_copies(seed))
        assert not broken, "\n".join([*broken, f"again: python -m tests.simulation {seed}"])


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_every_world_keeps_the_invariants(first: int) -> None:
    check(range(first, first + BATCH))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEEDS, MORE_SEEDS, BATCH))
def test_many_more_worlds_keep_the_invariants(first: int) -> None:
    check(range(first, first + BATCH))


@pytest.mark.parametrize("invariant", PLANTED)
def test_each_invariant_finds_the_bug_that_was_planted_for_it(invariant: str) -> None:
    parts, said = PLANTED[invariant]
    for seed in range(SOON):
        try:
            broken = run(simulate(seed, parts)).broken
        except Leak as leak:
            broken = [f"left open: {leak}"]
        if any(said in line for line in broken):
            return
    raise AssertionError(f"in {SOON} worlds nobody noticed")


@pytest.mark.parametrize("bug", PLANTED_IN_PATHS)
def test_bugs_in_how_nars_go_on_are_found(bug: str) -> None:
    fallback = PLANTED_IN_PATHS[bug]
    found: list[str] = []
    for seed in range(SOON):
        found += run(simulate_paths(seed, fallback))
    assert any("not delivered" in line for line in found)
    # Even so the one hash over all of it lets no wrong byte pass for a whole.
    assert not any("wrong bytes" in line for line in found)


@pytest.mark.parametrize("bug", PLANTED_IN_COPIES)
def test_bugs_in_how_copies_are_kept_are_found(bug: str) -> None:
    mirror, said = PLANTED_IN_COPIES[bug]
    assert any(said in line for seed in range(SOON) for line in run(simulate_copies(seed, mirror)))


def test_a_seed_is_the_same_world_every_time() -> None:
    for seed in range(20):
        one, other = run(simulate(seed)), run(simulate(seed))
        for first, second in zip(one.members, other.members, strict=True):
            assert first.watched.began == second.watched.began
            assert first.chaos.met == second.chaos.met
            assert first.changes == second.changes
