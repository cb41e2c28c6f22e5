"""The disk guard: what it admits, what it counts, and that it logs a state once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.support.small_disk import fill, small_disk
from tests.support.virtual_clock import virtual_clock
from tvixstore.kv import DiskGuard
from tvixstore.kv.disk import FRESH, HOLD
from tvixstore.metrics import Metrics

FULL, ROOM = "store.full", "store.room"
MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture(autouse=True)
def all_events(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tvixstore")


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


@virtual_clock
async def test_without_limits_everything_that_fits_the_disk_is_admitted(tmp_path: Path) -> None:
    guard = DiskGuard(tmp_path)
    assert guard.admits(0) and guard.admits(MIB)
    assert not guard.admits(1 << 60)


@virtual_clock
async def test_it_says_what_is_in_the_way(tmp_path: Path) -> None:
    huge = 1 << 60
    guard = DiskGuard(tmp_path)
    assert guard.why_not(huge).startswith(f"the disk is full: {huge:,} bytes more are needed, ")
    guard.limit(min_free=1, max_size=None)
    assert guard.why_not(huge).startswith(f"min_free leaves no room for {huge:,} bytes more: ")
    guard.limit(min_free=1, max_size=MIB)
    assert guard.why_not(MIB + 1) == "max_size leaves no room for 1,048,577 bytes more"
    guard.failed(1, "no space left on device")
    assert guard.why_not(1) == "the disk was full a moment ago"


@virtual_clock
async def test_the_store_stays_below_its_maximum(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = DiskGuard(tmp_path, max_size=10 * GIB, measured={"index": lambda: 3 * GIB})
    guard.add("chunks", 5 * GIB)
    assert guard.used() == {"chunks": 5 * GIB, "index": 3 * GIB}
    assert guard.admits(2 * GIB)
    assert not guard.admits(2 * GIB + 1)
    # What still fits is taken, without saying that the store had room again.
    assert guard.admits(GIB)
    guard.add("chunks", 2 * GIB)
    assert not guard.admits(1)
    assert events(caplog) == [FULL]
    guard.add("chunks", -4 * GIB)
    assert guard.admits(GIB)
    assert events(caplog) == [FULL, ROOM]


@virtual_clock
async def test_giving_up_what_did_not_fit_is_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = DiskGuard(tmp_path, max_size=10 * GIB)
    guard.add("chunks", 4 * GIB)
    for _ in range(5):
        # An object of 8 GiB, written by pieces of 2, is given up at the limit, again and again.
        for _ in range(3):
            assert guard.admits(2 * GIB)
            guard.stage("chunks", 2 * GIB)
        assert not guard.admits(2 * GIB)
        guard.stage("chunks", -6 * GIB)
        # A little room does not change that, nor do smaller objects.
        guard.add("chunks", -MIB)
        assert guard.admits(1)
        guard.add("chunks", MIB)
        guard.keep(0, MIB)
    assert events(caplog) == [FULL]
    guard.add("chunks", -3 * GIB)
    assert guard.admits(1)
    assert events(caplog) == [FULL, ROOM]


@virtual_clock
async def test_what_was_written_before_the_store_was_full_proves_no_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = DiskGuard(tmp_path, max_size=10 * GIB)
    for _ in range(2):
        assert guard.admits(4 * GIB)
        guard.stage("chunks", 4 * GIB)
    assert not guard.admits(3 * GIB)
    # Two that were all there already become whole, one after the other.
    guard.keep(4 * GIB, 4 * GIB)
    guard.keep(4 * GIB, 4 * GIB)
    assert not guard.admits(3 * GIB)
    assert events(caplog) == [FULL]
    # This one went in since.
    guard.stage("chunks", 3 * GIB)
    guard.keep(3 * GIB, 3 * GIB)
    assert events(caplog) == [FULL, ROOM]


@virtual_clock
async def test_space_of_others_is_noticed_within_a_moment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path, megabytes=16) as disk:
        guard = DiskGuard(disk, min_free=4 * MIB)
        assert guard.admits(8 * MIB)
        ballast = fill(disk, leave=5 * MIB)
        await asyncio.sleep(FRESH)
        assert not guard.admits(2 * MIB)
        assert guard.admits(MIB)
        ballast.unlink()
        await asyncio.sleep(FRESH)
        assert guard.admits(2 * MIB)
        assert events(caplog) == [FULL, ROOM]


@virtual_clock
async def test_what_is_written_counts_before_the_disk_is_asked_again(tmp_path: Path) -> None:
    with small_disk(tmp_path, megabytes=16) as disk:
        guard = DiskGuard(disk, min_free=4 * MIB)
        assert guard.admits(10 * MIB)
        guard.add("chunks", 10 * MIB)
        assert not guard.admits(10 * MIB)


@virtual_clock
async def test_a_failed_write_holds_everything_until_one_as_large_went_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # As with a quota: the file system has room, and refuses all the same.
    guard = DiskGuard(tmp_path)
    for _ in range(3):
        assert guard.admits(MIB)
        guard.stage("chunks", MIB)
        guard.failed(MIB, "no space left on device")
        guard.stage("chunks", -MIB)
        assert not guard.admits(0)
        await asyncio.sleep(HOLD)
    guard.keep(0, 1000)
    assert events(caplog) == [FULL]
    assert guard.admits(MIB)
    guard.stage("chunks", MIB)
    guard.keep(MIB, MIB)
    assert events(caplog) == [FULL, ROOM]
    assert guard.used() == {"chunks": MIB}


@virtual_clock
async def test_the_gauges_are_right_whenever_they_are_asked(tmp_path: Path) -> None:
    metrics = Metrics()
    index = [100]
    guard = DiskGuard(tmp_path, measured={"index": lambda: index[0]}, metrics=metrics)

    def gauge(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"tvixstore_{name}", labels)

    guard.add("chunks", 70)
    guard.add("chunks", -20)
    index[0] = 200
    assert gauge("store_bytes", kind="chunks") == 50
    assert gauge("store_bytes", kind="index") == 200
    status = os.statvfs(tmp_path)
    free = gauge("store_free_bytes")
    assert free is not None
    assert 0 < free <= status.f_blocks * status.f_frsize
