"""Counting how calls end, for metrics and for whoever wants to know of one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeVar

from tvixstore.errors import StoreError
from tvixstore.metrics import NodeMeter
from tvixstore.policy.tracing import add_up, outcome_of
from tvixstore.streams import ByteStream

Answer = TypeVar("Answer")


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
        count(meter, call, outcome_of(error), perf_counter() - started)
        raise
    outcome = "absent" if is_absent(result) else "present"
    count(meter, call, outcome, perf_counter() - started)
    return result


def count(meter: NodeMeter, call: str, outcome: str, seconds: float) -> None:
    """One finished call of the node that `meter` is about."""
    meter.observe(call, outcome, seconds)
    add_up(meter.service, meter.node, outcome, seconds)


def count_bytes(meter: NodeMeter, size: int) -> None:
    """So many bytes that it delivered."""
    meter.bytes.inc(size)
    add_up(meter.service, meter.node, None, size=size)


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
            count(self._meter, "stream", outcome_of(error), perf_counter() - self._opened)
            raise
        count_bytes(self._meter, len(part))
        return part

    async def aclose(self) -> None:
        await self._inner.aclose()
