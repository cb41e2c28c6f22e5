"""Pieces of work and snapshots of them, on a virtual clock."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.activity import Activity, Watch, Work
from tvixstore.activity import registry as registry_module
from tvixstore.activity.registry import MOST_LISTED, MOST_WATCHERS
from tvixstore.activity.work import Rate


@dataclass
class Counting:
    """Whoever does the work."""

    done: int = 0
    total: int | None = None
    readers: int = 1

    def measured(self) -> tuple[int, int | None, int]:
        return self.done, self.total, self.readers


@dataclass(frozen=True)
class Upstream:
    name: str
    up: bool


def test_a_rate_is_of_the_last_seconds() -> None:
    rate = Rate(0.0)
    assert rate.at(0.1, 50) == 0.0, "too little time to tell"
    assert rate.at(1.0, 1000) == 1000.0
    for second in range(2, 40):
        last = rate.at(second, 1000 + (second - 1) * 500)
    assert last == pytest.approx(500, rel=0.01)
    assert rate.at(39.05, 20_000) == last, "asked again at once, it is the same"
    for second in range(40, 80):
        last = rate.at(second, 20_000)
    assert last < 1


def test_nobody_looks_for_long_and_the_rate_is_of_all_that_time() -> None:
    assert Rate(0.0).at(600.0, 600_000) == 1000.0


@virtual_clock
async def test_work_that_waits_has_no_rate_and_is_timed_from_its_first_byte() -> None:
    doer = Counting()
    work = Work("nar", "/nix/store/x", "mirror", doer)
    await asyncio.sleep(60)
    assert work.rate(60.0) == 0.0
    work.enter("downloading")
    await asyncio.sleep(2)
    doer.done = 2000
    assert work.rate(62.0) == 1000.0


@virtual_clock
async def test_an_end_is_the_last_phase_and_keeps_the_numbers() -> None:
    doer, heard = Counting(7, 10, 2), list[str]()
    work = Work("nar", "x", "y", doer)
    work.listen(lambda work: heard.append(work.phase))
    work.enter("connecting")
    work.enter("connecting")
    work.enter("downloading")
    work.enter("failed", "it broke")
    work.enter("done")
    doer.done = 9
    assert heard == ["connecting", "downloading", "failed"]
    assert (work.phase, work.reason, work.over) == ("failed", "it broke", True)
    assert work.measured() == (7, 10, 2)


@virtual_clock
async def test_a_snapshot_tells_of_all_that_is_under_way() -> None:
    activity = Activity()
    activity.requests = {"http": lambda: 3, "grpc": lambda: 0}
    activity.upstreams = lambda: [Upstream("mirror", True), Upstream("other", False)]
    doer = Counting(0, 100)
    work = activity.begin(Work("nar", "/nix/store/x", "mirror", doer))
    waits = activity.begin(Work("blob", "ab", "office"))
    work.enter("downloading")
    await asyncio.sleep(2)
    doer.done = 50
    before = time.time()
    told = activity.snapshot()
    assert before - 0.001 <= told["time"] <= time.time() + 0.001
    fast, slow = told["fills"]
    started = fast.pop("started")
    assert started == pytest.approx(told["time"] - 2, abs=0.01)
    assert fast == {
        "id": 1,
        "kind": "nar",
        "what": "/nix/store/x",
        "source": "mirror",
        "phase": "downloading",
        "reason": None,
        "bytes": 50,
        "total": 100,
        "rate": 25,
        "readers": 1,
    }
    assert (slow["id"], slow["phase"], slow["total"], slow["rate"]) == (2, "waiting", None, 0)
    assert told["totals"] == {
        "fills": 2,
        "bytes": 50,
        "rate": 25,
        "requests": {"http": 3, "grpc": 0},
        "watchers": 0,
        "upstreams_up": 1,
        "upstreams_down": 1,
    }
    assert (told["left_out"], told["down"]) == (0, ["other"])
    for each in (work, waits):
        each.enter("done")
    assert len(activity) == 0
    assert activity.snapshot()["totals"]["bytes"] == 50, "what is over counts still"


@virtual_clock
async def test_a_snapshot_of_very_much_is_bounded_and_has_the_fastest() -> None:
    activity = Activity()
    doers = [Counting() for _ in range(MOST_LISTED + 50)]
    for number, doer in enumerate(doers):
        activity.begin(Work("nar", str(number), "mirror", doer)).enter("downloading")
    await asyncio.sleep(1)
    for number, doer in enumerate(doers):
        doer.done = number
    told = activity.snapshot()
    assert [each["what"] for each in told["fills"][:2]] == ["249", "248"]
    assert (len(told["fills"]), told["left_out"]) == (MOST_LISTED, 50)
    assert told["totals"]["fills"] == MOST_LISTED + 50
    assert told["totals"]["bytes"] == sum(range(250))


@virtual_clock
async def test_reasons_are_redacted() -> None:
    activity = Activity()
    work = activity.begin(Work("nar", "x", "mirror"))
    work.enter("pausing", "https://user:secret@mirror.example/nar?token=secret: reset")
    assert "secret" not in await activity.text()
    assert "mirror.example" in await activity.text()


@virtual_clock
async def test_many_watchers_of_one_moment_share_a_snapshot() -> None:
    activity, made = Activity(), list[str]()
    for number in range(300):
        activity.begin(Work("nar", str(number), "mirror"))

    def upstreams() -> list[Upstream]:
        made.append("")
        return []

    activity.upstreams = upstreams
    texts = await asyncio.gather(*[activity.text() for _ in range(32)])
    assert len(set(texts)) == len(made) == 1
    await asyncio.sleep(registry_module._SHARED)
    await activity.text()
    assert len(made) == 2


@virtual_clock
async def test_a_snapshot_of_very_much_lets_others_have_their_turns() -> None:
    activity = Activity()
    works = [activity.begin(Work("nar", str(n), "mirror", Counting(n))) for n in range(2000)]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            # What ends while a snapshot is taken counts once.
            works.pop().enter("done")
            await asyncio.sleep(0)

    another = asyncio.create_task(other())
    told = json.loads(await activity.text())
    another.cancel()
    await asyncio.wait([another])
    assert turns > 10
    assert (len(told["fills"]), told["left_out"]) == (MOST_LISTED, 2000 - MOST_LISTED)
    assert told["totals"]["bytes"] == sum(range(2000))


@virtual_clock
async def test_watchers_are_limited_and_do_not_count_as_requests() -> None:
    activity, ended = Activity(), asyncio.Event()
    watches = [Watch.begin(activity, "http", ended) for _ in range(MOST_WATCHERS)]
    activity.requests["http"] = lambda: MOST_WATCHERS + 2
    assert Watch.begin(activity, "grpc", ended) is None
    assert activity.snapshot()["totals"]["requests"] == {"http": 2}
    for watch in watches:
        assert watch is not None
        watch.close()
        watch.close()
    assert activity.snapshot()["totals"]["watchers"] == 0
    with Watch(activity, "grpc", ended) as last:
        assert not await last.ended_within(5)
        ended.set()
        assert await last.ended_within(5)
    assert activity.watchers.total() == 0
