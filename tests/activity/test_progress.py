"""What readers are told of what they wait for, on a virtual clock."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from tests.support.virtual_clock import now, run, virtual_clock
from tvixstore.activity import Progress, Waiting, Work, follow, following, watching
from tvixstore.errors import Unavailable
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.limit import Permits
from tvixstore.policy.retry import Retry
from tvixstore.policy.single_flight import SingleFlight


@dataclass
class Heard:
    """A callback that remembers, with the time."""

    told: list[Progress] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        self.times.append(now())

    @property
    def phases(self) -> list[str]:
        return [each.phase for each in self.told]


@dataclass
class Counting:
    done: int = 0

    def measured(self) -> tuple[int, int | None, int]:
        return self.done, 100, 2


@virtual_clock
async def test_each_phase_is_told_in_order_and_how_far_it_is_meanwhile() -> None:
    heard, doer = Heard(), Counting()
    work = Work("nar", "/nix/store/x", "mirror", doer)
    with watching(heard, every=1.0), following(work, joined=False):
        work.enter("connecting")
        work.enter("downloading")
        await asyncio.sleep(2.5)
        doer.done = 100
        work.enter("ingesting")
        work.enter("done")
    assert heard.phases == [
        "waiting",
        "connecting",
        "downloading",
        "downloading",
        "downloading",
        "ingesting",
        "done",
    ]
    assert heard.times[:5] == [0, 0, 0, 1.0, 2.0]
    assert heard.told[4] == Progress(
        kind="nar",
        what="/nix/store/x",
        source="mirror",
        phase="downloading",
        reason=None,
        bytes=0,
        total=100,
        rate=0.0,
        waiting=2.0,
        readers=2,
        joined=False,
    )
    last = heard.told[-1]
    assert (last.over, last.bytes) == (True, 100)
    assert 0 < last.rate < 100
    await asyncio.sleep(10)
    assert len(heard.told) == 7, "and then it is quiet"


@virtual_clock
async def test_whoever_leaves_before_the_end_is_told_that_it_goes_on() -> None:
    heard, work = Heard(), Work("nar", "x", "mirror")
    with watching(heard):
        follows = follow(work, joined=True)
        assert follows is not None
        follows.close()
        follows.close()
        work.enter("downloading")
    assert heard.phases == ["waiting", "left"]
    assert all(each.joined for each in heard.told)


@virtual_clock
async def test_nobody_is_told_where_nobody_asked() -> None:
    work = Work("nar", "x", "mirror")
    assert follow(work, joined=False) is None
    with Waiting("lookup", "x", "mirror") as asked:
        asked.absent()


@virtual_clock
async def test_a_callback_that_raises_is_not_called_again_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls, work = list[Progress](), Work("nar", "x", "mirror")

    def broken(progress: Progress) -> None:
        calls.append(progress)
        raise ZeroDivisionError

    with watching(broken, every=1.0), following(work, joined=False):
        work.enter("connecting")
        await asyncio.sleep(5)
        work.enter("done")
    assert len(calls) == 1
    assert [record.name for record in caplog.records] == ["tvixstore.activity"]


@virtual_clock
async def test_it_is_not_called_from_within_what_it_is_told_of() -> None:
    """A callback may do what it likes: cancel, start, ask the store."""
    order, work = list[str](), Work("nar", "x", "mirror")
    with watching(lambda progress: order.append(progress.phase)), following(work, joined=False):
        order.append("before")
        work.enter("connecting")
        order.append("after")
        await asyncio.sleep(0)
    assert order == ["before", "after", "waiting", "connecting", "left"]


@virtual_clock
async def test_what_a_callback_asks_for_itself_it_is_not_told() -> None:
    heard = Heard()

    def ask(progress: Progress) -> None:
        heard(progress)
        with Waiting("lookup", "y", "other"):
            pass

    with watching(ask), Waiting("lookup", "x", "mirror"):
        await asyncio.sleep(1)
    assert {each.what for each in heard.told} == {"x"}


@virtual_clock
async def test_two_who_ask_are_told_of_their_own() -> None:
    shared = Work("nar", "shared", "mirror")

    async def ask(name: str, *, joined: bool) -> Heard:
        heard = Heard()
        with watching(heard):
            with Waiting("lookup", name, "mirror"):
                await asyncio.sleep(1)
            with following(shared, joined=joined):
                await asyncio.sleep(1)
        return heard

    one, other = await asyncio.gather(ask("one", joined=False), ask("other", joined=True))
    assert {each.what for each in one.told} == {"one", "shared"}
    assert {each.what for each in other.told} == {"other", "shared"}
    assert [h.told[-1].joined for h in (one, other)] == [False, True]


@virtual_clock
async def test_one_watch_within_another_tells_both() -> None:
    outer, inner = Heard(), Heard()
    with watching(outer):
        with watching(inner), Waiting("lookup", "x", "mirror"):
            await asyncio.sleep(0)
        with Waiting("lookup", "y", "mirror"):
            await asyncio.sleep(0)
    assert [each.what for each in inner.told] == ["x", "x"]
    assert [each.what for each in outer.told] == ["x", "x", "y", "y"]
    assert outer.phases == ["asking", "done"] * 2


@virtual_clock
async def test_tasks_started_inside_are_told_of_and_outlive_it_silently() -> None:
    heard = Heard()

    async def ask() -> None:
        with Waiting("lookup", "x", "mirror"):
            await asyncio.sleep(5)
        with Waiting("lookup", "later", "mirror"):
            await asyncio.sleep(5)

    with watching(heard, every=1.0):
        task = asyncio.create_task(ask())
        await asyncio.sleep(1.5)
    assert heard.phases == ["asking", "asking", "left"]
    await task
    assert len(heard.told) == 3


@pytest.mark.parametrize(
    ("ending", "phase", "reason"),
    [
        (None, "done", None),
        (Unavailable("http://user:word@mirror/ is down"), "failed", "http://mirror/ is down"),
        (asyncio.CancelledError(), "cancelled", None),
        (ZeroDivisionError(), "cancelled", None),
    ],
)
def test_waiting_ends_as_what_was_waited_for(
    ending: BaseException | None, phase: str, reason: str | None
) -> None:
    async def check() -> None:
        heard = Heard()
        with suppress(Unavailable, asyncio.CancelledError, ZeroDivisionError):
            with watching(heard), Waiting("lookup", "x", "mirror"):
                if ending is not None:
                    raise ending
        assert (heard.phases, heard.told[-1].reason) == (["asking", phase], reason)

    run(check())


@virtual_clock
async def test_whoever_joins_a_flight_hears_what_it_waits_for_already() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    inner: SingleFlight[str, str] = SingleFlight()
    fill = Work("nar", "fill", "mirror")

    async def deeper() -> str:
        with following(fill, joined=False):
            fill.enter("downloading")
            await asyncio.sleep(10)
            fill.enter("done")
        return "answer"

    async def ask(delay: float, *, leaves: float | None = None) -> Heard:
        heard = Heard()
        await asyncio.sleep(delay)
        with watching(heard, every=100), suppress(TimeoutError):
            async with asyncio.timeout(leaves):
                assert await flights.run("key", lambda: inner.run("key", deeper)) == "answer"
        return heard

    async def unwatched() -> None:
        assert await flights.run("key", lambda: inner.run("key", deeper)) == "answer"

    first, second, third, _ = await asyncio.gather(ask(1), ask(2), ask(3, leaves=4), unwatched())
    # Whoever began the flight asked nothing; the others found it under way.
    for heard in (first, second):
        assert heard.phases == ["downloading", "done"]
        assert all(each.joined for each in heard.told)
    assert third.phases == ["downloading", "left"]


@virtual_clock
async def test_whoever_begins_a_flight_has_joined_nothing() -> None:
    flights: SingleFlight[str, None] = SingleFlight()
    heard = Heard()

    async def ask() -> None:
        with Waiting("lookup", "x", "mirror"):
            await asyncio.sleep(1)

    with watching(heard, every=100):
        await flights.run("key", ask)
    assert heard.phases == ["asking", "done"]
    assert not any(each.joined for each in heard.told)


@virtual_clock
async def test_pauses_between_attempts_are_told_with_what_failed() -> None:
    heard = Heard()

    async def fail() -> None:
        raise Unavailable("the mirror is down")

    with watching(heard), pytest.raises(Unavailable):
        await Retry(attempts=2, name="mirror").run(fail)
    assert heard.phases == ["pausing", "done"]
    first = heard.told[0]
    assert (first.kind, first.source, first.reason) == ("retry", "mirror", "the mirror is down")


@virtual_clock
async def test_an_open_breaker_is_told() -> None:
    heard = Heard()
    breaker = Breaker(failures=1, name="mirror")

    async def fail() -> None:
        raise Unavailable("it is down")

    with watching(heard):
        for _ in range(2):
            with pytest.raises(Unavailable):
                await breaker.run(fail)
    [told] = heard.told
    assert (told.kind, told.source, told.phase) == ("breaker", "mirror", "failed")
    assert told.reason is not None and told.reason.endswith("it is down")


@virtual_clock
async def test_a_turn_at_a_limit_is_told_only_if_it_has_to_be_waited_for() -> None:
    heard, permits = Heard(), Permits(1, "office")
    with watching(heard, every=100):
        held = await permits.acquire()
        assert heard.told == []
        asyncio.get_running_loop().call_later(5, held.release)
        (await permits.acquire()).release()
    assert heard.phases == ["waiting", "done"]
    assert (heard.told[0].kind, heard.told[0].source) == ("turn", "office")
    assert heard.times == [0.0, 5.0]


@virtual_clock
async def test_cancelled_in_the_middle_it_leaves_no_timer() -> None:
    heard = Heard()

    async def ask() -> None:
        with watching(heard, every=1.0), Waiting("lookup", "x", "mirror"):
            await asyncio.sleep(1e9)

    task = asyncio.create_task(ask())
    await asyncio.sleep(1.5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert heard.phases == ["asking", "asking", "cancelled"]
    assert _timers() == 0


def _timers() -> int:
    loop = asyncio.get_running_loop()
    scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled")  # noqa: B009
    return sum(not handle.cancelled() for handle in scheduled)
