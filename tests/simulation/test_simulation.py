"""Thousands of worlds in which things go wrong, and what holds in all of them.

A seed that fails is had again by `python -m tests.simulation WORLD SEED`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.simulation.copies import simulate_copies
from tests.simulation.paths import simulate_paths
from tests.simulation.planted import PLANTED, PLANTED_IN_COPIES, PLANTED_IN_PATHS
from tests.simulation.world import simulate
from tests.simulation.worlds import WORLDS, broken_in
from tests.support.leaks import Leak
from tests.support.virtual_clock import run

# Of each world: some 2,500 worlds in all, at 5 to 30 ms.
SEEDS = 360
MORE_SEEDS = 2_360
BATCH = 90
MORE_BATCH = 200
# A planted bug has to show within so many.
SOON = 150
REPOSITORY = Path(__file__).parents[2]


def check(name: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        broken = broken_in(name, seed)
        assert not broken, "\n".join([*broken, f"again: python -m tests.simulation {name} {seed}"])


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
@pytest.mark.parametrize("name", WORLDS)
def test_every_world_keeps_the_invariants(name: str, first: int) -> None:
    check(name, range(first, first + BATCH))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SEEDS, MORE_SEEDS, MORE_BATCH))
@pytest.mark.parametrize("name", WORLDS)
def test_many_more_worlds_keep_the_invariants(name: str, first: int) -> None:
    check(name, range(first, first + MORE_BATCH))


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


def test_a_seed_is_the_same_world_in_every_process() -> None:
    def trace(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--trace", "0-9"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    one, other = trace("1"), trace("2")
    assert len(one.splitlines()) > 1000
    assert one == other
