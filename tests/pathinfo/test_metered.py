from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, read, read_until_it_breaks
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.pathinfo.metered import MeteredPathInfoService


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    labels = {"service": "pathinfo", "node": "mirror", **labels}
    return metrics.registry.get_sample_value(f"tvixstore_node_{name}", labels) or 0.0


@virtual_clock
async def test_each_outcome_is_counted_with_its_time_and_reported() -> None:
    metrics = Metrics()
    reported: list[tuple[str, str]] = []

    def status(outcome: str, error: BaseException | None) -> None:
        reported.append((outcome, str(error or "")))

    inner = Scripted(after=2.0)
    service = MeteredPathInfoService(inner, metrics.node("pathinfo", "mirror"), status, now)
    await service.describe(KEY)
    inner.says = None
    await service.describe(KEY)
    for error in (Unavailable("down"), CorruptData("lies"), ValueError("a bug")):
        inner.says = error
        with pytest.raises(type(error)):
            await service.describe(KEY)
    asking = asyncio.create_task(service.describe(KEY))
    await asyncio.sleep(1.0)
    asking.cancel()
    await asyncio.wait([asking])
    counted = {
        outcome: sample(metrics, "calls_total", call="describe", outcome=outcome)
        for outcome in ("present", "absent", "unknown", "rejected", "cancelled")
    }
    assert counted == {"present": 1, "absent": 1, "unknown": 2, "rejected": 1, "cancelled": 1}
    assert sample(metrics, "seconds_sum", call="describe") == 11.0
    assert reported == [
        ("present", ""),
        ("absent", ""),
        ("unknown", "down"),
        ("rejected", "lies"),
        ("unknown", "a bug"),
        ("cancelled", ""),
    ]


@virtual_clock
async def test_every_call_is_counted_under_its_name() -> None:
    metrics = Metrics()
    service = MeteredPathInfoService(Scripted(puts=[]), metrics.node("pathinfo", "mirror"))
    await service.get(KEY)
    await service.put(info_of())
    await read(await service.open_nar(info_of()))
    for call in ("get", "put", "open_nar"):
        assert sample(metrics, "calls_total", call=call, outcome="present") == 1
    assert sample(metrics, "bytes_total") == 100


@virtual_clock
async def test_a_stream_that_breaks_is_counted() -> None:
    metrics = Metrics()
    inner = Scripted(breaks_at=40)
    service = MeteredPathInfoService(inner, metrics.node("pathinfo", "mirror"))
    await read_until_it_breaks(await service.open_nar(info_of()))
    assert sample(metrics, "bytes_total") == 40
    assert sample(metrics, "calls_total", call="stream", outcome="unknown") == 1
    assert inner.open_streams == 0
