"""The same work on many things, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Calls at a time: enough that the way there and back does not count, and not all places.
AT_ONCE: Final = 16


async def in_parallel(
    work: Callable[[Item], Coroutine[Any, Any, None]], items: Iterable[Item], at_once: int
) -> None:
    """Does `work` on each item, `at_once` at a time, begun in their order.

    Raises the first error once everything else that was under way has been cancelled and is over.
    """
    items = list(items)
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(items))):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise first_of(errors) from None


async def together(
    call: Callable[[Item], Coroutine[Any, Any, Result]], items: Sequence[Item]
) -> list[Result]:
    """What `call` returns for each item, in their order; raises as `in_parallel` does."""
    results: dict[int, Result] = {}

    async def one(place: int) -> None:
        results[place] = await call(items[place])

    await in_parallel(one, range(len(items)), AT_ONCE)
    return [results[place] for place in range(len(items))]


def first_of(errors: ExceptionGroup[Exception]) -> Exception:
    """The error that ended a task group: the others are of those who were with it."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
