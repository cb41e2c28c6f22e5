from __future__ import annotations

import asyncio

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.policy import tracing
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.policy.tracing import MOST, TEXT, Label, Step, bounded_text, spell, traced

ROOT = Label("root", "request")


def request() -> Step:
    return Step(ROOT, "describe", tracing.clock())


def shape(step: Step) -> object:
    """A step as (node, outcome, [what is below it])."""
    return (step.label.node, step.outcome, [shape(each) for each in step.children or ()])


async def say(answer: object) -> object:
    await asyncio.sleep(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


async def ask(node: str, answer: object) -> object:
    return await traced(Label(node, "kind"), "describe", say(answer))


@virtual_clock
async def test_without_a_trace_nothing_is_told() -> None:
    assert await ask("a", 1) == 1
    tracing.note("code", "text")
    tracing.cost(5)
    tracing.add_up("blob", "far", "present")
    assert tracing.here() is None


@virtual_clock
async def test_steps_hang_on_whoever_asked_and_say_how_they_ended() -> None:
    step = request()

    async def ask_others() -> object:
        assert await ask("absent", None) is None
        with pytest.raises(CorruptData):
            await ask("liar", CorruptData("lies"))
        with pytest.raises(Unavailable):
            await ask("down", Unavailable("down"))
        return await ask("has it", 1)

    token = tracing.begin(step)
    await traced(Label("all", "fallback"), "describe", ask_others())
    tracing.over(token)
    assert step.children is not None
    assert shape(step.children[0]) == (
        "all",
        "present",
        [
            ("absent", "absent", []),
            ("liar", "rejected", []),
            ("down", "unknown", []),
            ("has it", "present", []),
        ],
    )
    assert [each.reason for each in step.children[0].children or ()] == [None, "lies", "down", None]


@virtual_clock
async def test_tasks_of_one_request_tell_in_its_trace_and_of_two_in_neither_other_one() -> None:
    async def serve(name: str) -> Step:
        step = request()
        tracing.begin(step)
        tasks = [asyncio.create_task(ask(f"{name}{number}", number)) for number in range(3)]
        await asyncio.gather(*tasks)
        return step

    one, other = await asyncio.gather(
        asyncio.create_task(serve("a")), asyncio.create_task(serve("b"))
    )
    assert [each.label.node for each in one.children or ()] == ["a0", "a1", "a2"]
    assert [each.label.node for each in other.children or ()] == ["b0", "b1", "b2"]


@virtual_clock
async def test_who_joins_work_under_way_is_told_of_all_of_it() -> None:
    flights: SingleFlight[str, object] = SingleFlight()

    async def serve() -> Step:
        step = request()
        tracing.begin(step)
        await flights.run("key", lambda: work())
        return step

    async def work() -> object:
        await asyncio.sleep(1)
        return await ask("far", 1)

    first = asyncio.create_task(serve())
    await asyncio.sleep(0.5)
    second = asyncio.create_task(serve())
    leader, follower = await first, await second
    assert leader.notes is None
    assert [note.code for note in follower.notes or ()] == ["joined"]
    for step in (leader, follower):
        (flight,) = step.children or [request()]
        assert [shape(each) for each in flight.children or ()] == [("far", "present", [])]


@virtual_clock
async def test_a_trace_is_bounded_and_counts_what_it_left_out() -> None:
    step = request()
    tracing.begin(step)
    for number in range(MOST + 10):
        assert await ask(str(number), 1) == 1
    assert len(step.children or ()) == MOST
    assert step.opened().left_out == 10
    for _ in range(1000):
        tracing.note("code", "text")
    assert step.notes is None


@virtual_clock
async def test_one_step_does_not_use_up_a_trace_with_its_notes() -> None:
    step = request()
    tracing.begin(step)
    for _ in range(1000):
        tracing.note("code", "text")
    await ask("a", 1)
    assert len(step.notes or ()) < 20
    assert len(step.children or ()) == 1


@virtual_clock
async def test_of_what_is_over_nothing_more_is_told() -> None:
    step = request()
    tracing.begin(step)
    step.end("present")
    await ask("late", 1)
    tracing.note("late")
    tracing.add_up("blob", "far", "present")
    assert (step.children, step.notes, step.opened().sums) == (None, None, None)


@virtual_clock
async def test_stores_of_content_are_added_up() -> None:
    step = request()
    tracing.begin(step)
    for outcome in ("present", "present", "absent"):
        tracing.add_up("blob", "office", outcome, 0.5)
    tracing.add_up("blob", "office", None, size=300)
    found = (step.opened().sums or {})["blob", "office"]
    assert (found.calls, found.bytes, found.seconds) == (3, 300, 1.5)
    assert found.outcomes == {"present": 2, "absent": 1}


def test_a_secret_is_not_shown_because_its_url_was_cut_in_half() -> None:
    text = "x" * (TEXT - 20) + " https://user:password@cache.example.org/"
    assert "password" not in bounded_text(text)
    assert len(bounded_text(text)) <= TEXT + 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00012, "0.12 ms"), (0.25, "250 ms"), (43.1, "43.1 s"), (600, "10 min"), (7200, "2 h")],
)
def test_times_are_spelled_for_people(seconds: float, text: str) -> None:
    assert spell(seconds) == text
