"""Bugs planted in compositions, of which each has to be found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from tests.simulation.blobs import simulate_blobs
from tests.simulation.infos import simulate_infos
from tests.simulation.planted_in_compositions import (
    PLANTED_IN_BLOBS,
    PLANTED_IN_INFOS,
    PLANTED_IN_SHARDS,
    PLANTED_IN_TREES,
)
from tests.simulation.shards import simulate_shards
from tests.simulation.trees import simulate_trees
from tests.simulation.worlds import broken_by

# A planted bug has to show within so many.
SOON = 300

World = Callable[..., Awaitable[list[str]]]


def has_to_be_found(world: World, bug: Any, said: str) -> None:
    for seed in range(SOON):
        broken = broken_by(partial(world, seed, bug), f"seed {seed}")
        if any(said in line for line in broken):
            return
    raise AssertionError(f"in {SOON} worlds nobody noticed")


@pytest.mark.parametrize("bug", PLANTED_IN_BLOBS)
def test_bugs_in_compositions_of_blobs_are_found(bug: str) -> None:
    has_to_be_found(simulate_blobs, *PLANTED_IN_BLOBS[bug])


@pytest.mark.parametrize("bug", PLANTED_IN_TREES)
def test_bugs_in_compositions_of_directories_are_found(bug: str) -> None:
    has_to_be_found(simulate_trees, *PLANTED_IN_TREES[bug])


@pytest.mark.parametrize("bug", PLANTED_IN_INFOS)
def test_bugs_in_compositions_of_path_infos_are_found(bug: str) -> None:
    has_to_be_found(simulate_infos, *PLANTED_IN_INFOS[bug])


@pytest.mark.parametrize("bug", PLANTED_IN_SHARDS)
def test_bugs_in_how_shards_are_drawn_are_found(bug: str) -> None:
    has_to_be_found(simulate_shards, *PLANTED_IN_SHARDS[bug])
