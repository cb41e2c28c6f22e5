"""The virtual clock is a tool that other tests trust, so it has its own."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support import virtual_clock
from tests.support.leaks import Leak
from tests.support.virtual_clock import Deadlock, now


@virtual_clock.virtual_clock
async def test_a_day_passes_in_no_time() -> None:
    started = time.monotonic()
    await asyncio.sleep(86_400)
    assert now() == 86_400
    assert time.monotonic() - started < 60


@virtual_clock.virtual_clock
async def test_timers_fire_in_the_order_of_their_times() -> None:
    order: list[int] = []

    async def note(delay: int) -> None:
        await asyncio.sleep(delay)
        order.append(delay)

    await asyncio.gather(note(3), note(1), note(2))
    assert order == [1, 2, 3]
    assert now() == 3


def test_waiting_for_what_cannot_come_fails_instead_of_hanging() -> None:
    async def wait_forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="wait_forever"):
        virtual_clock.run(wait_forever())


def test_a_task_left_on_the_loop_is_a_leak() -> None:
    tasks = []

    async def leave() -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(3600), name="forgotten"))
        await asyncio.sleep(0)

    with pytest.raises(Leak, match="forgotten"):
        virtual_clock.run(leave())


@virtual_clock.virtual_clock
async def test_threads_are_refused() -> None:
    with pytest.raises(AssertionError, match="virtual clock"):
        await asyncio.to_thread(print)
