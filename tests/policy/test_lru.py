"""The bounded dict."""

from __future__ import annotations

from tvixstore.policy.lru import Lru


def test_what_was_used_longest_ago_goes_first() -> None:
    kept: Lru[str, int] = Lru(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_weights_add_up_to_the_capacity_at_most() -> None:
    kept: Lru[str, int] = Lru(10)
    kept.put("a", 1, weight=4)
    kept.put("b", 2, weight=6)
    assert len(kept) == 2
    kept.put("c", 3, weight=5)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (None, None, 3)


def test_a_key_put_again_weighs_what_it_does_now() -> None:
    kept: Lru[str, int] = Lru(10)
    kept.put("a", 1, weight=9)
    kept.put("a", 2, weight=1)
    kept.put("b", 3, weight=9)
    assert (kept.get("a"), kept.get("b")) == (2, 3)


def test_what_outweighs_everything_is_not_kept_and_drops_nothing_else() -> None:
    kept: Lru[str, int] = Lru(10)
    kept.put("a", 1)
    kept.put("b", 2, weight=11)
    kept.put("a", 3, weight=11)
    assert (kept.get("a"), kept.get("b"), len(kept)) == (None, None, 0)


def test_what_is_discarded_makes_room() -> None:
    kept: Lru[str, int] = Lru(1)
    kept.put("a", 1)
    kept.discard("a")
    kept.discard("a")
    kept.put("b", 2)
    assert (kept.get("a"), kept.get("b")) == (None, 2)
