"""Waiting until nobody uses a thing."""

from __future__ import annotations

import asyncio

from tests.support.virtual_clock import virtual_clock
from tvixstore.policy.tasks import end
from tvixstore.policy.uses import Uses


@virtual_clock
async def test_it_is_over_when_the_last_one_ends() -> None:
    uses = Uses()
    await uses.over()
    uses.begin()
    uses.begin()
    waiting = asyncio.create_task(uses.over())
    await asyncio.sleep(1)
    uses.end()
    await asyncio.sleep(1)
    assert not waiting.done()
    # Who comes while the last one leaves is waited for, too.
    uses.end()
    uses.begin()
    await asyncio.sleep(1)
    assert not waiting.done()
    uses.end()
    await waiting


@virtual_clock
async def test_who_waits_may_give_up_and_wait_again() -> None:
    uses = Uses()
    uses.begin()
    waiting = asyncio.create_task(uses.over())
    await asyncio.sleep(1)
    await end([waiting])
    waiting = asyncio.create_task(uses.over())
    await asyncio.sleep(1)
    uses.end()
    await waiting
