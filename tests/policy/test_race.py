from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import CorruptData, Skipped, StoreError, Unavailable
from tvixstore.policy.race import Member, race


@dataclass
class Runner:
    """Answers `brings` after `delay` seconds; never, if that is `None`."""

    brings: str | Exception | None
    delay: float | None = 0.0
    name: str = "runner"
    # Answers also if it is cancelled, as one that was about to anyway.
    stubborn: bool = False
    started: float | None = None
    cancelled: bool = False
    brought: list[str] = field(default_factory=list)

    async def ask(self) -> str | None:
        self.started = now()
        try:
            if self.delay is None:
                await asyncio.Event().wait()
            else:
                await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled = True
            if not self.stubborn:
                raise
        if isinstance(self.brings, Exception):
            raise self.brings
        if self.brings is not None:
            self.brought.append(self.brings)
        return self.brings


def down(name: str = "down") -> Unavailable:
    return Unavailable(name)


async def run(
    *runners: Runner, hedge: float = 0.0, bin: list[str] | None = None
) -> tuple[int, str] | None:
    async def dispose(late: str) -> None:
        await asyncio.sleep(0.1)
        assert bin is not None
        bin.append(late)

    members = [Member(runner.name, runner.ask) for runner in runners]
    return await race(members, hedge, dispose if bin is not None else None)


def starts(*runners: Runner) -> list[float | None]:
    return [runner.started for runner in runners]


@virtual_clock
async def test_without_a_delay_all_are_asked_at_once_and_the_first_answer_wins() -> None:
    runners = [Runner("a", None), Runner("b", 0.2), Runner("c", 0.1)]
    assert await run(*runners) == (2, "c")
    assert now() == 0.1
    assert starts(*runners) == [0, 0, 0]
    assert [runner.cancelled for runner in runners] == [True, True, False]


@virtual_clock
async def test_the_next_is_asked_after_the_hedge_delay() -> None:
    runners = [Runner("a", None), Runner("b", None), Runner("c", 0.1), Runner("d")]
    assert await run(*runners, hedge=0.5) == (2, "c")
    assert starts(*runners) == [0, 0.5, 1.0, None]
    assert now() == pytest.approx(1.1)


@virtual_clock
async def test_an_answer_before_the_hedge_delay_asks_nobody_else() -> None:
    runners = [Runner("a", 0.4), Runner("b")]
    assert await run(*runners, hedge=0.5) == (0, "a")
    assert starts(*runners) == [0, None]


@pytest.mark.parametrize("brings", [None, down()], ids=["absent", "failure"])
def test_an_absent_or_a_failure_asks_the_next_at_once(brings: Exception | None) -> None:
    @virtual_clock
    async def test() -> None:
        runners = [Runner(brings, 0.1), Runner("b", 1.0), Runner("c", 0.1)]
        assert await run(*runners, hedge=0.5) == (2, "c")
        assert starts(*runners) == pytest.approx([0, 0.1, 0.6])

    test()


@virtual_clock
async def test_the_slow_first_still_wins_if_it_answers_first() -> None:
    assert await run(Runner("a", 0.6), Runner("b", 0.2), hedge=0.5) == (0, "a")


@virtual_clock
async def test_of_two_answers_at_the_same_moment_the_earlier_member_wins() -> None:
    bin: list[str] = []
    assert await run(Runner(None), Runner("b"), Runner("c"), bin=bin) == (1, "b")
    assert bin == ["c"]


@virtual_clock
async def test_absent_is_the_answer_only_if_all_said_so() -> None:
    assert await run(Runner(None, 0.3), Runner(None, 0.1)) is None
    assert await run() is None


@virtual_clock
async def test_a_healthy_member_wins_over_every_kind_of_trouble() -> None:
    troubled = [Runner(None), Runner(down()), Runner(CorruptData("lies")), Runner("never", None)]
    assert await run(*troubled, Runner("here", 3.0)) == (4, "here")
    assert now() == 3.0


@virtual_clock
async def test_absent_beside_a_failure_is_unknown_with_every_reason() -> None:
    with pytest.raises(Unavailable) as caught:
        await run(
            Runner(None, name="a"),
            Runner(down("refused"), name="b"),
            Runner(CorruptData("wrong key"), 0.1, name="c"),
        )
    assert str(caught.value) == "b: refused; c: wrong key"


@virtual_clock
async def test_a_member_that_crashes_fails_alone() -> None:
    assert await run(Runner(ValueError("a bug")), Runner("b", 1.0)) == (1, "b")
    with pytest.raises(Unavailable, match="a bug"):
        await run(Runner(ValueError("a bug")))


@virtual_clock
async def test_a_member_that_cancels_itself_has_failed() -> None:
    async def cancel_oneself() -> str:
        raise asyncio.CancelledError

    assert await race([Member("odd", cancel_oneself), Member("b", Runner("b", 1.0).ask)]) == (
        1,
        "b",
    )


@virtual_clock
async def test_a_late_answer_is_disposed_of_before_the_race_is_over() -> None:
    bin: list[str] = []
    assert await run(Runner("a", None, stubborn=True), Runner("b", 0.1), bin=bin) == (1, "b")
    assert bin == ["a"]


@virtual_clock
async def test_a_failing_disposal_does_not_cost_the_answer() -> None:
    async def dispose(late: str) -> None:
        raise OSError("cannot be closed")

    members = [Member("a", Runner("a").ask), Member("b", Runner("b").ask)]
    assert await race(members, 0.0, dispose) == (0, "a")


@pytest.mark.parametrize("times", [1, 2, 3])
def test_cancelled_from_outside_however_often_it_leaves_no_task(times: int) -> None:
    @virtual_clock
    async def test() -> None:
        async def slow_to_leave() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1.0)
            return "never"

        members = [Member("a", slow_to_leave), Member("b", slow_to_leave)]
        outer = asyncio.create_task(race(members))
        await asyncio.sleep(0.5)
        for _ in range(times):
            outer.cancel()
            await asyncio.sleep(0.1)
        await asyncio.wait([outer])
        assert outer.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    test()


@virtual_clock
async def test_cancelled_at_the_finish_the_winner_is_disposed_of_too() -> None:
    bin: list[str] = []
    outer = asyncio.create_task(
        run(Runner("a", 0.5), Runner("b", None, stubborn=True), Runner("c", 0.5), bin=bin)
    )
    # The race is decided at 0.5 s and then busy disposing of the late answers.
    await asyncio.sleep(0.55)
    outer.cancel()
    await asyncio.wait([outer])
    assert outer.cancelled()
    assert sorted(bin) == ["a", "b", "c"]


KINDS = ["present", "absent", "failure", "skipped", "hang"]


def runner_of(kind: str, delay: float, stubborn: bool, index: int) -> Runner:
    brings: dict[str, str | Exception | None] = {
        "absent": None,
        "failure": down(),
        "skipped": Skipped("down", [f"{index}"], answered=False),
    }
    return Runner(
        brings.get(kind, f"{index}"),
        None if kind == "hang" else delay,
        name=f"{index}",
        stubborn=stubborn,
    )


fields = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 8).map(lambda n: n / 4), st.booleans()),
    max_size=5,
)
hedges = st.sampled_from([0.0, 0.25, 0.5, 3.0])


async def settle(answer: Awaitable[tuple[int, str] | None]) -> tuple[int, str] | str | None:
    try:
        return await answer
    except Skipped:
        return "skipped"
    except StoreError:
        return "unknown"


@given(fields, hedges)
@virtual_clock
async def test_any_race_ends_as_its_members_say(
    field: list[tuple[str, float, bool]], hedge: float
) -> None:
    kinds = [kind for kind, _, _ in field]
    runners = [runner_of(*member, index) for index, member in enumerate(field)]
    bin: list[str] = []
    limit = 100.0
    try:
        async with asyncio.timeout(limit):
            answer = await settle(run(*runners, hedge=hedge, bin=bin))
    except TimeoutError:
        answer = "hang"
    if "present" in kinds:
        # Stubborn ones that hang bring something when they are cancelled, but never win by that.
        assert isinstance(answer, tuple)
        index, _ = answer
        assert kinds[index] == "present"
        healthy = [i for i, kind in enumerate(kinds) if kind == "present"]
        # Plus a moment for each disposal.
        assert now() <= min(i * hedge + field[i][1] for i in healthy) + 0.1 * len(field) + 1e-6
    elif "hang" in kinds:
        assert answer == "hang"
    elif "failure" in kinds:
        assert answer == "unknown"
    elif "skipped" in kinds:
        assert answer == "skipped"
    else:
        assert answer is None
    brought = [text for runner in runners for text in runner.brought]
    kept = [answer[1]] if isinstance(answer, tuple) else []
    assert sorted(brought) == sorted(bin + kept)


@given(fields, hedges, st.integers(0, 12).map(lambda n: n / 8), st.integers(1, 3))
@virtual_clock
async def test_any_race_can_be_cancelled_at_any_time(
    field: list[tuple[str, float, bool]], hedge: float, after: float, times: int
) -> None:
    runners = [runner_of(*member, index) for index, member in enumerate(field)]
    bin: list[str] = []
    outer = asyncio.create_task(settle(run(*runners, hedge=hedge, bin=bin)))
    await asyncio.sleep(after)
    for _ in range(times):
        outer.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([outer])
    answer = None if outer.cancelled() else outer.result()
    kept = [answer[1]] if isinstance(answer, tuple) else []
    brought = [text for runner in runners for text in runner.brought]
    assert sorted(brought) == sorted(bin + kept)
    assert asyncio.all_tasks() == {asyncio.current_task()}
