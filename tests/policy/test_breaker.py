from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import CorruptData, StorageFull, Unavailable, Untrusted
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.deadline import bounded
from tvixstore.policy.race import Member, race
from tvixstore.policy.timeout import answer_within

Call = Callable[[], Awaitable[str | None]]


async def present() -> str | None:
    return "here"


async def absent() -> str | None:
    return None


async def fail() -> str | None:
    raise Unavailable("refused")


async def lie() -> str | None:
    raise CorruptData("wrong hash")


async def hang() -> str | None:
    await asyncio.Event().wait()
    return None


class Changes(list[tuple[bool, str]]):
    def __call__(self, is_open: bool, reason: str) -> None:
        self.append((is_open, reason))


async def outcome(breaker: Breaker, call: Call) -> str:
    """What a call came to, and whether it went through at all."""
    asked = False

    async def note() -> str | None:
        nonlocal asked
        asked = True
        return await call()

    try:
        result = await breaker.run(note)
    except (Unavailable, CorruptData):
        return "failed" if asked else "left alone"
    return "absent" if result is None else "present"


def state(breaker: Breaker) -> str:
    return "open" if breaker.is_open else "closed"


async def run_and_cancel_after(breaker: Breaker, seconds: float) -> None:
    task = asyncio.create_task(breaker.run(hang))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])


@virtual_clock
async def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(failures=3)
    assert [await outcome(breaker, call) for call in (fail, lie)] == ["failed"] * 2
    assert state(breaker) == "closed"
    assert await outcome(breaker, fail) == "failed"
    assert state(breaker) == "open"
    assert await outcome(breaker, present) == "left alone"


@pytest.mark.parametrize("success", [present, absent])
def test_an_answer_in_between_starts_the_count_anew(success: Call) -> None:
    @virtual_clock
    async def run() -> None:
        breaker = Breaker(failures=2)
        for _ in range(5):
            await outcome(breaker, fail)
            await outcome(breaker, success)
        assert state(breaker) == "closed"

    run()


@virtual_clock
async def test_while_open_it_says_why_and_since_when_and_until_when() -> None:
    breaker = Breaker(failures=2, open_for=30.0)
    await outcome(breaker, fail)
    await asyncio.sleep(5.0)
    await outcome(breaker, lie)
    await asyncio.sleep(10.0)
    with pytest.raises(Unavailable, match="failing for 15 s: wrong hash") as caught:
        await breaker.run(present)
    assert caught.value.retry_after == 20.0


@virtual_clock
async def test_a_probe_that_succeeds_closes_it() -> None:
    changes = Changes()
    breaker = Breaker(failures=1, open_for=30.0, on_change=changes)
    await outcome(breaker, fail)
    await asyncio.sleep(29.9)
    assert await outcome(breaker, present) == "left alone"
    await asyncio.sleep(0.1)
    assert state(breaker) == "open"
    assert await outcome(breaker, absent) == "absent"
    assert state(breaker) == "closed"
    assert await outcome(breaker, present) == "present"
    assert changes == [(True, "refused"), (False, "refused")]


@virtual_clock
async def test_a_probe_that_fails_opens_it_again_without_a_word() -> None:
    changes = Changes()
    breaker = Breaker(failures=3, open_for=30.0, on_change=changes)
    for _ in range(3):
        await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    assert await outcome(breaker, fail) == "failed"
    await asyncio.sleep(29.9)
    assert await outcome(breaker, present) == "left alone"
    await asyncio.sleep(0.1)
    assert await outcome(breaker, present) == "present"
    assert [is_open for is_open, _ in changes] == [True, False]


@virtual_clock
async def test_there_is_one_probe_at_a_time() -> None:
    breaker = Breaker(failures=1, open_for=30.0)
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    gate = asyncio.Event()

    async def wait() -> str | None:
        await gate.wait()
        return "here"

    probe = asyncio.create_task(breaker.run(wait))
    await asyncio.sleep(0)
    assert await outcome(breaker, present) == "left alone"
    gate.set()
    assert await probe == "here"
    assert await outcome(breaker, present) == "present"


@virtual_clock
async def test_a_probe_that_was_cancelled_late_is_a_failure() -> None:
    breaker = Breaker(failures=1, open_for=30.0, slow=3.0)
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    await run_and_cancel_after(breaker, 3.1)
    assert await outcome(breaker, present) == "left alone"
    await asyncio.sleep(30.0)
    assert await outcome(breaker, present) == "present"


@virtual_clock
async def test_a_probe_that_was_cancelled_soon_is_a_failure_too() -> None:
    breaker = Breaker(failures=1, open_for=30.0, slow=3.0)
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    await run_and_cancel_after(breaker, 0.1)
    assert await outcome(breaker, present) == "left alone"
    await asyncio.sleep(30.0)
    assert await outcome(breaker, present) == "present"


@virtual_clock
async def test_a_probe_that_timed_out_is_a_failure() -> None:
    breaker = Breaker(failures=1, open_for=30.0)
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    with pytest.raises(Unavailable, match="no answer within 1 s"):
        await answer_within(1.0, lambda: breaker.run(hang))
    assert await outcome(breaker, present) == "left alone"


@virtual_clock
async def test_a_probe_that_lost_a_race_leaves_the_probing_to_the_next() -> None:
    breaker = Breaker(failures=1, open_for=30.0, slow=3.0)
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)

    async def fast() -> str | None:
        await asyncio.sleep(0.1)
        return "here"

    slow = Member("slow", lambda: breaker.run(hang))
    assert await race([slow, Member("fast", fast)]) == (1, "here")
    assert state(breaker) == "open"
    assert await outcome(breaker, present) == "present"
    assert state(breaker) == "closed"


@virtual_clock
async def test_cancelled_after_long_is_a_failure_and_cancelled_soon_is_not() -> None:
    breaker = Breaker(failures=1, slow=1.0)
    await run_and_cancel_after(breaker, 0.9)
    assert state(breaker) == "closed"
    await run_and_cancel_after(breaker, 1.1)
    assert state(breaker) == "open"
    assert breaker.reason == "no answer within 1.1 s"


@virtual_clock
async def test_what_is_not_its_fault_neither_counts_nor_ends_the_probing() -> None:
    async def full() -> str | None:
        raise StorageFull("our disk")

    breaker = Breaker(failures=1, open_for=30.0)
    assert await outcome(breaker, full) == "failed"
    assert state(breaker) == "closed"
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    assert await outcome(breaker, full) == "failed"
    assert state(breaker) == "open"
    assert await outcome(breaker, present) == "present"


@virtual_clock
async def test_a_download_that_nobody_waits_for_any_more_is_no_failure() -> None:
    breaker = Breaker(failures=1, slow=1.0)
    download = asyncio.create_task(breaker.run(hang, download=True))
    await asyncio.sleep(60.0)
    download.cancel()
    await asyncio.wait([download])
    assert state(breaker) == "closed"


@virtual_clock
async def test_a_probe_that_takes_long_keeps_nobody_out() -> None:
    breaker = Breaker(failures=1, open_for=30.0, slow=3.0)
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    download = asyncio.create_task(breaker.run(hang, download=True))
    await asyncio.sleep(2.9)
    assert await outcome(breaker, present) == "left alone"
    await asyncio.sleep(0.2)
    assert await outcome(breaker, fail) == "failed"
    assert await outcome(breaker, present) == "left alone"
    await asyncio.sleep(30.0)
    assert await outcome(breaker, present) == "present"
    download.cancel()
    await asyncio.wait([download])
    assert state(breaker) == "closed"


@virtual_clock
async def test_a_probe_that_fails_after_another_succeeded_counts_like_any_call() -> None:
    changes = Changes()
    breaker = Breaker(failures=1, open_for=30.0, on_change=changes)
    assert await outcome(breaker, fail) == "failed"
    await asyncio.sleep(31)

    async def fail_late() -> str | None:
        await asyncio.sleep(10)
        raise Unavailable("at last")

    late = asyncio.create_task(outcome(breaker, fail_late))
    await asyncio.sleep(5)
    assert await outcome(breaker, present) == "present"
    assert await late == "failed"
    # Here a single failure opens it, and it says so.
    assert [is_open for is_open, _ in changes] == [True, False, True]


@virtual_clock
async def test_what_strangers_signed_is_an_answer() -> None:
    async def stranger() -> str | None:
        raise Untrusted("no trusted signature")

    breaker = Breaker(failures=1, open_for=30.0)
    with pytest.raises(Untrusted):
        await breaker.run(stranger)
    assert state(breaker) == "closed"
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    with pytest.raises(Untrusted):
        await breaker.run(stranger)
    assert state(breaker) == "closed"


@virtual_clock
async def test_a_stream_that_broke_counts_like_a_call_that_failed() -> None:
    breaker = Breaker(failures=2)
    breaker.broke(StorageFull("our disk"))
    breaker.broke(Untrusted("a stranger's"))
    breaker.broke(Unavailable("connection reset"))
    assert state(breaker) == "closed"
    breaker.broke(CorruptData("wrong bytes"))
    assert state(breaker) == "open"


@virtual_clock
async def test_a_deadline_of_the_caller_counts_only_after_a_while() -> None:
    breaker = Breaker(failures=1, slow=3.0)

    async def hurried(seconds: float) -> str:
        with bounded(seconds):
            return await outcome(breaker, lambda: answer_within(60.0, hang))

    for _ in range(10):
        assert await hurried(2.9) == "failed"
    assert state(breaker) == "closed"
    await hurried(3.1)
    assert state(breaker) == "open"


@virtual_clock
async def test_a_probe_that_comes_to_its_callers_deadline_has_failed() -> None:
    breaker = Breaker(failures=1, open_for=30.0)
    await outcome(breaker, fail)
    await asyncio.sleep(30.0)
    with bounded(0.1):
        assert await outcome(breaker, lambda: answer_within(60.0, hang)) == "failed"
    await asyncio.sleep(29.0)
    assert await outcome(breaker, present) == "left alone"
