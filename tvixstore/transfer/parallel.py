"""The same work on many things, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


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


def first_of(errors: ExceptionGroup[Exception]) -> Exception:
    """The error that ended a task group: the others are of those who were with it."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
