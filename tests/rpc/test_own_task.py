"""Calls in tasks of their own, when they and their callers end in the same moment."""

from __future__ import annotations

import asyncio

import pytest

from tvixstore.rpc.client.call import in_own_task


async def test_an_error_that_came_as_its_caller_left_is_nobodys() -> None:
    # The leak check complains of errors that were never looked at.
    failing = asyncio.Event()

    async def fail() -> None:
        await failing.wait()
        raise ConnectionRefusedError

    async def leave() -> None:
        await in_own_task(fail(), None)

    caller = asyncio.create_task(leave())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    failing.set()
    # The call runs, and fails, before the caller does.
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
