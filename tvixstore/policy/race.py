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
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.tracing import Tell, spell, untold
from tvixstore.policy.verdict import Verdict

Result = TypeVar("Result")

# Seconds after which a race looks again whether there is a hedge to spend by now.
_ASK_AGAIN = 0.1

log = Logger("tvixstore.policy.race")


@dataclass(frozen=True, slots=True)
class Member(Generic[Result]):
    """One who races: `ask` returns a right answer, or `None` if he does not have it."""

    name: str
    ask: Callable[[], Coroutine[Any, Any, Result | None]]
    # It failed at this very thing lately: others come first, however fast it is.
    set_back: bool = False


async def race(
    members: Sequence[Member[Result]],
    hedge: float | Hedging = 0.0,
    dispose: Callable[[Result], Awaitable[None]] | None = None,
    tell: Tell = untold,
) -> tuple[int, Result] | None:
    """The first answer, with its member's index, or `None` if all of them said absent.

    `hedge` is in seconds, 0 for all at once, or what a group of members keeps from race to race.
    Answers that come too late go to `dispose`. Raises as `Verdict` does if nobody had it and some
    failed.
    """
    run = _Race(members, hedge if isinstance(hedge, Hedging) else Hedging(hedge), tell)
    winner: asyncio.Task[Result | None] | None = None
    reason: str | None = None
    try:
        winner = await run.first_answer()
        reason = tasks.OUTRUN
    except asyncio.CancelledError as cancelled:
        reason = next(iter(cancelled.args), None)
        raise
    finally:
        try:
            await dismiss([task for task in run.asked if task is not winner], dispose, reason)
        except asyncio.CancelledError:
            # The caller leaves at the finish: the winner comes too late as well.
            if winner is not None:
                await dismiss([winner], dispose, None)
            raise
    if winner is None:
        return None
    answer = winner.result()
    assert answer is not None
    run.tell_of_winner(run.asked[winner])
    return run.asked[winner], answer


class _Race(Generic[Result]):
    """One race; `asked` has whom it asked, with their indexes, also when it is cancelled."""

    def __init__(self, members: Sequence[Member[Result]], hedging: Hedging, tell: Tell) -> None:
        self._tell = tell
        self.asked: dict[asyncio.Task[Result | None], int] = {}
        self._members = members
        self._hedging = hedging
        set_back = [place for place, member in enumerate(members) if member.set_back]
        self._waiting = deque(hedging.order([member.name for member in members], set_back))
        self._verdict = Verdict()
        # Who was asked last.
        self._latest = ""
        self._waiter: asyncio.Future[None] | None = None

    async def first_answer(self) -> asyncio.Task[Result | None] | None:
        """The task with the first answer."""
        loop = asyncio.get_running_loop()
        running: set[asyncio.Task[Result | None]] = set()
        self._hedging.begin()
        next_start = loop.time()
        # Whether the next one is asked in place of one that had nothing: that is no hedge.
        due = True
        while self._waiting or running:
            if self._waiting and loop.time() >= next_start:
                if due or not running or self._hedging.may_hedge():
                    if running and not due and not self._hedging.at_once:
                        self._tell_of_hedge()
                    running.add(self._start())
                    next_start = loop.time() + self._hedging.after(self._latest)
                else:
                    next_start = loop.time() + max(_ASK_AGAIN, self._hedging.after(self._latest))
                due = False
                continue
            await self._wait(running, next_start if self._waiting else None)
            done = [task for task in running if task.done()]
            running.difference_update(done)
            for task in sorted(done, key=self.asked.__getitem__):
                if self._judge(task):
                    return task
                next_start, due = loop.time(), True
        self._verdict.conclude()
        return None

    async def _wait(self, running: set[asyncio.Task[Result | None]], until: float | None) -> None:
        """Until one of `running` is over, at most until then; sometimes it returns for nothing.

        As `asyncio.wait`, which would have everybody call back anew for each one that ends.
        """
        if any(task.done() for task in running):
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if until is None else loop.call_at(until, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def tell_of_winner(self, index: int) -> None:
        """Says who won, and who was not even asked."""
        if len(self.asked) > 1:
            self._tell("race.won", f"{self._members[index].name} was first", None)
        if self._waiting:
            names = ", ".join(self._members[place].name for place in self._waiting)
            self._tell("race.not_asked", f"not asked: {names}", None)

    def _tell_of_hedge(self) -> None:
        after = self._hedging.after(self._latest)
        name = self._members[self._waiting[0]].name
        text = f"{name} asked as well: no answer from {self._latest} within {spell(after)}"
        self._tell("race.hedge", text, after)

    def _start(self) -> asyncio.Task[Result | None]:
        loop = asyncio.get_running_loop()
        index = self._waiting.popleft()
        member = self._members[index]
        self._latest = member.name
        task = loop.create_task(member.ask(), name=f"ask {member.name}")
        task.add_done_callback(self._wake)
        self.asked[task] = index
        if not self._hedging.at_once:
            known, started = self._hedging.of(member.name), loop.time()

            def learn(task: asyncio.Task[Result | None]) -> None:
                # A failure, however fast, says only that there was no answer till then.
                failed = task.cancelled() or task.exception() is not None
                (known.gave_up if failed else known.answered)(loop.time() - started)

            task.add_done_callback(learn)
        return task

    def _judge(self, task: asyncio.Task[Result | None]) -> bool:
        """Whether the finished `task` has an answer; if not, the verdict hears what it said."""
        name = self._members[self.asked[task]].name
        if task.cancelled():
            # By itself: the race cancels nobody before it is over.
            self._verdict.failed(name, Unavailable("cancelled"))
        elif (error := task.exception()) is None:
            if task.result() is not None:
                return True
            self._verdict.absent()
        elif isinstance(error, Exception):
            self._verdict.failed(name, error)
        else:
            raise error
        return False


async def dismiss(
    losers: Sequence[asyncio.Task[Result | None]],
    dispose: Callable[[Result], Awaitable[None]] | None,
    reason: str | None,
) -> None:
    """Ends the losers and disposes of what they brought; a cancellation is raised after."""
    if not losers:
        return
    if dispose is None:
        await tasks.end(losers, reason)
        return
    ending = asyncio.create_task(_end_and_dispose(losers, dispose, reason), name="dismiss losers")
    await tasks.outwait([ending])


async def _end_and_dispose(
    losers: Sequence[asyncio.Task[Result | None]],
    dispose: Callable[[Result], Awaitable[None]],
    reason: str | None,
) -> None:
    await tasks.end(losers, reason)
    for loser in losers:
        if loser.cancelled() or loser.exception() is not None:
            continue
        if (late := loser.result()) is not None:
            try:
                await dispose(late)
            except Exception as error:
                log.error("race.dispose_failed", exc_info=error, member=loser.get_name())
