"""Counting how calls end, for metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeVar

from tvixstore.errors import CorruptData, InvalidData, StoreError
from tvixstore.metrics import NodeMeter
from tvixstore.streams import ByteStream

Answer = TypeVar("Answer")


def outcome_of(error: BaseException) -> str:
    """How metrics and logs call a call that ended in `error`."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, CorruptData | InvalidData):
        return "rejected"
    return "unknown"


async def observed(
    meter: NodeMeter,
    call: str,
    answer: Awaitable[Answer],
    is_absent: Callable[[Answer], bool] = lambda answer: answer is None,
) -> Answer:
    """What `answer` gives, counted as a `call`."""
    # Not the loop's time: uvloop's has a resolution of 1 ms.
    started = perf_counter()
    try:
        result = await answer
    except BaseException as error:
        meter.observe(call, outcome_of(error), perf_counter() - started)
        raise
    outcome = "absent" if is_absent(result) else "present"
    meter.observe(call, outcome, perf_counter() - started)
    return result


class ObservedStream(ByteStream):
    """Counts the bytes of `inner`, and a stream that breaks as a call `stream` of its own."""

    def __init__(self, inner: ByteStream, meter: NodeMeter) -> None:
        self._inner = inner
        self._meter = meter
        self._opened = perf_counter()

    async def __anext__(self) -> bytes:
        try:
            part = await self._inner.__anext__()
        except (StoreError, OSError) as error:
            self._meter.observe("stream", outcome_of(error), perf_counter() - self._opened)
            raise
        self._meter.bytes.inc(len(part))
        return part

    async def aclose(self) -> None:
        await self._inner.aclose()
