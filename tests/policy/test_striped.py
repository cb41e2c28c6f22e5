"""Striped locks: one key is one lock, and there are no more of them than stripes."""

from __future__ import annotations

from tvixstore.policy.striped import StripedLocks


async def test_a_key_is_always_the_same_lock_and_few_keys_share_one() -> None:
    locks = StripedLocks()
    keys = [b"%d" % number for number in range(1000)]
    assert all(locks.of(key) is locks.of(bytes(key)) for key in keys)
    assert len({id(locks.of(key)) for key in keys}) == 64
    async with locks.of(b"1"):
        assert locks.of(b"1").locked()
        assert not locks.of(b"2").locked()
