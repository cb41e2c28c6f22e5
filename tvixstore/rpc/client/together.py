"""The same call for several things, some at a time, in the order that they were given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Calls at a time: enough that the way there and back does not count, and not all places.
AT_ONCE: Final = 16


async def together(
    call: Callable[[Item], Coroutine[Any, Any, Result]], items: Sequence[Item]
) -> list[Result]:
    """The results in order; raises the first error, once the other calls have ended."""
    results: list[Result] = []
    for begin in range(0, len(items), AT_ONCE):
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(call(item)) for item in items[begin : begin + AT_ONCE]]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        results += [task.result() for task in tasks]
    return results
