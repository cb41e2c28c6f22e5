from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvixstore.policy.rendezvous import Rendezvous

KEYS = [number.to_bytes(4, "big") for number in range(4000)]

WEIGHTS = st.lists(st.floats(0.25, 8.0), min_size=1, max_size=8)


def names(count: int) -> list[str]:
    return [f"shard-{number}" for number in range(count)]


def off(count: int, expected: float, total: int) -> float:
    """How many standard deviations `count` is from what is expected of `total` draws."""
    share = expected / total
    return abs(count - expected) / math.sqrt(total * share * (1 - share) + 1)


@settings(max_examples=25)
@given(WEIGHTS)
def test_members_get_shares_by_their_weights(weights: list[float]) -> None:
    placement = Rendezvous(names(len(weights)), weights)
    got = Counter(placement.order(key)[0] for key in KEYS)
    for place, weight in enumerate(weights):
        expected = len(KEYS) * weight / sum(weights)
        assert off(got[place], expected, len(KEYS)) < 5.5


@settings(max_examples=25)
@given(WEIGHTS, st.floats(0.25, 8.0))
def test_a_new_member_moves_only_its_share(weights: list[float], weight: float) -> None:
    before = Rendezvous(names(len(weights)), weights)
    after = Rendezvous(names(len(weights) + 1), [*weights, weight])
    new, moved = len(weights), 0
    for key in KEYS:
        order = after.order(key)
        if order[0] == new:
            moved += 1
        # All the others stay in the order that they were in: who had it before comes second.
        assert [place for place in order if place != new] == before.order(key)
    expected = len(KEYS) * weight / (sum(weights) + weight)
    assert off(moved, expected, len(KEYS)) < 5.5


def test_what_counts_are_names_and_not_their_order() -> None:
    one = Rendezvous(["a", "b", "c"], [1.0, 2.0, 3.0])
    other = Rendezvous(["c", "a", "b"], [3.0, 1.0, 2.0])
    for key in KEYS[:200]:
        assert one.names[one.order(key)[0]] == other.names[other.order(key)[0]]


def test_the_draw_is_the_same_for_ever() -> None:
    """What is stored is found by it: another draw would be another store."""
    placement = Rendezvous(["a", "b", "c"], [1.0, 1.0, 2.0])
    drawn = "".join(placement.names[placement.order(key)[0]] for key in KEYS[:40])
    assert drawn == GOLDEN


GOLDEN = "bcacbccbacabccbacbabaaaccabccbacccccbbcc"


@pytest.mark.parametrize("weight", [1e-6, 1e6])
def test_any_weight_can_be_drawn_with(weight: float) -> None:
    placement = Rendezvous(["a", "b"], [weight, 1.0])
    assert all(sorted(placement.order(key)) == [0, 1] for key in KEYS[:500])
