"""Thousands of worlds in which things go wrong, and what holds in all of them.

A seed that fails is had again by `python -m tests.simulation SEED`.
"""

from __future__ import annotations

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.world import simulate
from tests.support.leaks import Leak
from tests.support.virtual_clock import run

SEEDS = 2000
BATCH = 250
# A planted bug has to show within so many.
SOON = 150


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_every_world_keeps_the_invariants(first: int) -> None:
    for seed in range(first, first + BATCH):
        broken = run(simulate(seed)).broken
        assert not broken, "\n".join([*broken, f"again: python -m tests.simulation {seed}"])


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


def test_a_seed_is_the_same_world_every_time() -> None:
    for seed in range(20):
        one, other = run(simulate(seed)), run(simulate(seed))
        for first, second in zip(one.members, other.members, strict=True):
            assert first.watched.began == second.watched.began
            assert first.chaos.met == second.chaos.met
            assert first.changes == second.changes
