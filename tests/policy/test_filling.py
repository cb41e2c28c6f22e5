from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import CorruptData, StoreError, Unavailable
from tvixstore.metrics import Metrics
from tvixstore.policy.deadline import bounded, remaining
from tvixstore.policy.filling import FINISH_BELOW, LINGER, Fill, Filling


@dataclass(eq=False)
class Slow(Fill):
    """Takes `seconds`, or forever, and then has `says` as its outcome or error."""

    seconds: float | None = 1.0
    says: str | Exception | None = "done"
    left: int | None = None
    readers: int = 0
    told: list[StoreError] = field(default_factory=list)
    deadline: float | None = -1.0
    whole: bool = False

    def __post_init__(self) -> None:
        super().__init__("slow")

    async def _fill(self) -> str | None:
        self.deadline = remaining()
        await asyncio.sleep(1e9 if self.seconds is None else self.seconds)
        if isinstance(self.says, Exception):
            raise self.says
        self.whole = True
        return self.says

    def _left(self) -> int | None:
        return self.left

    def _readers(self) -> int:
        return self.readers

    def _broken(self, error: StoreError) -> None:
        self.told.append(error)

    def _is_whole(self) -> bool:
        return self.whole


def count(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("tvixstore_fills_total", {"outcome": outcome})


@virtual_clock
async def test_a_fill_is_found_while_it_runs_and_does_not_know_its_callers_deadline() -> None:
    metrics = Metrics()
    filling: Filling[str, Slow] = Filling(metrics)
    fill = Slow()
    with bounded(0.5):
        filling.start("key", fill)
    assert filling.running("key") is fill
    assert metrics.registry.get_sample_value("tvixstore_fills_running") == 1
    await fill.until(lambda: fill.over)
    await asyncio.sleep(0)
    assert fill.deadline is None
    assert filling.running("key") is None
    assert (count(metrics, "done"), fill.told) == (1, [])
    assert metrics.registry.get_sample_value("tvixstore_fills_running") == 0


@virtual_clock
async def test_what_goes_wrong_is_heard_by_all_who_wait_and_all_who_read() -> None:
    for error, shown in [
        (CorruptData("wrong"), "wrong"),
        (OSError(28, "No space left"), "No space left"),
        (ValueError("a bug"), "internal error"),
    ]:
        metrics = Metrics()
        filling: Filling[str, Slow] = Filling(metrics)
        fill = Slow(says=error)
        filling.start("key", fill)
        waiting = [asyncio.create_task(fill.until(lambda: False)) for _ in range(2)]
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreError) and shown in str(outcome)
        assert fill.told == [fill.error]
        assert filling.running("key") is None
        await asyncio.sleep(0)
        assert count(metrics, "failed") == 1


@virtual_clock
async def test_what_is_so_already_counts_more_than_what_goes_wrong_later() -> None:
    filling: Filling[str, Slow] = Filling()
    fill = Slow(says=Unavailable("down"))
    filling.start("key", fill)
    await asyncio.sleep(5.0)
    await fill.until(lambda: True)
    with pytest.raises(Unavailable, match="down"):
        await fill.until(lambda: False)


@virtual_clock
async def test_one_that_nobody_follows_lingers_and_stops() -> None:
    metrics = Metrics()
    filling: Filling[str, Slow] = Filling(metrics)
    fill = Slow(seconds=None, readers=1)
    filling.start("key", fill)
    await asyncio.sleep(100.0)
    for _ in range(3):
        fill.readers = 0
        fill.check_idle()
        await asyncio.sleep(LINGER - 1)
        fill.readers = 1
        fill.check_idle()
        await asyncio.sleep(LINGER * 5)
    fill.readers = 0
    fill.check_idle()
    await asyncio.sleep(LINGER - 1)
    assert filling.running("key") is fill
    await asyncio.sleep(2)
    # Whoever comes now begins a new one.
    assert filling.running("key") is None
    with pytest.raises(Unavailable, match="stopped"):
        await fill.until(lambda: False)
    assert count(metrics, "cancelled") == 1


@virtual_clock
async def test_one_that_passes_stops_at_once_and_a_short_rest_is_fetched_for_nobody() -> None:
    filling: Filling[str, Slow] = Filling()
    passes, nearly = Slow(seconds=None), Slow(seconds=100.0, left=FINISH_BELOW)
    passes.passing = True
    for key, fill in (("passes", passes), ("nearly", nearly)):
        filling.start(key, fill)
        fill.check_idle()
    await asyncio.sleep(0.1)
    assert passes.over and not nearly.over
    await asyncio.sleep(200.0)
    assert nearly.whole and nearly.error is None


@virtual_clock
async def test_closing_ends_also_those_that_have_not_begun() -> None:
    filling: Filling[str, Slow] = Filling()
    begun, fresh = Slow(), Slow()
    filling.start("begun", begun)
    await asyncio.sleep(0.5)
    filling.start("fresh", fresh)
    await filling.aclose()
    for fill in (begun, fresh):
        with pytest.raises(Unavailable, match="stopped"):
            await fill.until(lambda: False)
        assert len(fill.told) == 1
    assert filling.running("fresh") is None
