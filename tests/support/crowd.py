"""Several who do something at the same time, some of whom leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


async def crowd(random: Random, read: Callable[[], Coroutine[object, object, None]]) -> None:
    """Has four `read` at once, three times over, and cancels up to three of them."""
    for _ in range(3):
        readers = [asyncio.create_task(read()) for _ in range(4)]
        for reader in readers[: random.randint(0, 3)]:
            for _ in range(random.randint(0, 30)):
                await asyncio.sleep(0)
            await asyncio.sleep(random.choice([0, 0, 0.1, 3.05]))
            reader.cancel()
        for outcome in await asyncio.gather(*readers, return_exceptions=True):
            if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
                raise outcome
