"""A race: several members are asked for the same thing, and the first right answer is taken.

The first is asked at once, the next after the hedge delay, or as soon as one says that it does not
have it or fails. Losers are cancelled and awaited, so that no task outlives the call, whichever way
it ends; what a loser still delivers is disposed of. (Not `asyncio.staggered_race`: cancelled from
outside, it leaks tasks on Python 3.11.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tvixstore.errors import Unavailable
from tvixstore.log import Logger
from tvixstore.policy import tasks
from tvixstore.policy.verdict import Verdict

Result = TypeVar("Result")

log = Logger("tvixstore.policy.race")


@dataclass(frozen=True, slots=True)
class Member(Generic[Result]):
    """One who races: `ask` returns a right answer, or `None` if he does not have it."""

    name: str
    ask: Callable[[], Coroutine[Any, Any, Result | None]]


async def race(
    members: Sequence[Member[Result]],
    hedge: float = 0.0,
    dispose: Callable[[Result], Awaitable[None]] | None = None,
) -> tuple[int, Result] | None:
    """The first answer, with its member's index, or `None` if all of them said absent.

    `hedge` is in seconds; with 0 all are asked at once. Answers that come too late go to `dispose`.
    Raises as `Verdict` does if nobody had it and some failed.
    """
    asked: dict[asyncio.Task[Result | None], int] = {}
    winner: asyncio.Task[Result | None] | None = None
    try:
        winner = await _first_answer(members, hedge, asked)
    finally:
        try:
            await _dismiss([task for task in asked if task is not winner], dispose)
        except asyncio.CancelledError:
            # The caller leaves at the finish: the winner comes too late as well.
            if winner is not None:
                await _dismiss([winner], dispose)
            raise
    if winner is None:
        return None
    answer = winner.result()
    assert answer is not None
    return asked[winner], answer


async def _first_answer(
    members: Sequence[Member[Result]],
    hedge: float,
    asked: dict[asyncio.Task[Result | None], int],
) -> asyncio.Task[Result | None] | None:
    """The task with the first answer; notes in `asked` whom it asked, also when it is cancelled."""
    loop = asyncio.get_running_loop()
    verdict = Verdict()
    waiting = deque(enumerate(members))
    running: set[asyncio.Task[Result | None]] = set()
    next_start = loop.time()
    while waiting or running:
        if waiting and loop.time() >= next_start:
            index, member = waiting.popleft()
            task = loop.create_task(member.ask(), name=f"ask {member.name}")
            asked[task] = index
            running.add(task)
            next_start = loop.time() + hedge
            continue
        timeout = next_start - loop.time() if waiting else None
        done, running = await asyncio.wait(
            running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for task in sorted(done, key=asked.__getitem__):
            if _judge(task, members[asked[task]].name, verdict):
                return task
            next_start = loop.time()
    verdict.conclude()
    return None


def _judge(task: asyncio.Task[Result | None], name: str, verdict: Verdict) -> bool:
    """Whether the finished `task` has an answer; if not, `verdict` hears what it said."""
    if task.cancelled():
        # By itself: the race cancels nobody before it is over.
        verdict.failed(name, Unavailable("cancelled"))
    elif (error := task.exception()) is None:
        if task.result() is not None:
            return True
        verdict.absent()
    elif isinstance(error, Exception):
        verdict.failed(name, error)
    else:
        raise error
    return False


async def _dismiss(
    losers: Sequence[asyncio.Task[Result | None]],
    dispose: Callable[[Result], Awaitable[None]] | None,
) -> None:
    """Ends the losers and disposes of what they still brought; a cancellation is raised after."""
    if not losers:
        return
    if dispose is None:
        await tasks.end(losers)
        return
    ending = asyncio.create_task(_end_and_dispose(losers, dispose), name="dismiss losers")
    await tasks.outwait([ending])


async def _end_and_dispose(
    losers: Sequence[asyncio.Task[Result | None]], dispose: Callable[[Result], Awaitable[None]]
) -> None:
    await tasks.end(losers)
    for loser in losers:
        if loser.cancelled() or loser.exception() is not None:
            continue
        if (late := loser.result()) is not None:
            try:
                await dispose(late)
            except Exception as error:
                log.error("race.dispose_failed", exc_info=error, member=loser.get_name())
