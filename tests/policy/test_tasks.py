from __future__ import annotations

import asyncio

import pytest

from tvixstore.policy import tasks


async def fail() -> None:
    raise ValueError("broken")


async def test_whoever_waits_for_a_task_hears_when_it_is_over_however_it_ends() -> None:
    failing = asyncio.create_task(fail())
    await tasks.over(failing)
    assert isinstance(failing.exception(), ValueError)
    await tasks.over(failing)

    hanging = asyncio.create_task(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(hanging.cancel)
    await tasks.over(hanging)
    assert hanging.cancelled()


async def test_whoever_stops_waiting_for_a_task_leaves_it_alone() -> None:
    gate = asyncio.Event()
    task = asyncio.create_task(gate.wait())
    waiting = asyncio.create_task(tasks.over(task))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await task


async def test_tasks_that_were_over_before_count_as_seen() -> None:
    failed = asyncio.create_task(fail())
    await asyncio.wait([failed])
    # That nobody looked at its error would be reported when it is collected.
    await tasks.outwait([failed])
