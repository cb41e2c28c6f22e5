"""An event loop whose clock jumps: a test of a timeout of an hour takes no time at all.

When nothing is ready, `time()` moves to the next timer instead of waiting for it. What happens, and
in which order, depends on the test alone, so there are no threads on it. A test in which nothing
can happen any more fails at once, with every task that waits.

    @virtual_clock
    async def test_the_second_member_is_asked_after_the_hedge_delay() -> None: ...

Below `@given`, each example gets a loop of its own that starts at time 0.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, ParamSpec, TypeVar

from tests.support.leaks import LoopWatch, fail_on

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Deadlock(AssertionError):
    """Nothing is ready and nothing is scheduled: whoever waits now waits forever."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """A loop that reads 0 s at its start, and skips every wait."""

    def __init__(self) -> None:
        self._now = 0.0
        self._polling = _JumpingSelector(self._jump)
        super().__init__(self._polling)

    def time(self) -> float:
        return self._now

    def run_in_executor(self, *_: object) -> NoReturn:
        raise AssertionError("a thread takes real time: not on a virtual clock")

    def _jump(self, seconds: float | None) -> None:
        if seconds is not None:
            self._now += seconds
            return
        waiting = "\n".join(f"  {task!r}" for task in asyncio.all_tasks(self))
        raise Deadlock(f"nothing can happen any more at {self._now} s; waiting:\n{waiting}")


class _JumpingSelector(selectors.DefaultSelector):
    """Calls `jump` where a selector would wait; `None` is a wait without an end."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self._jump(timeout)
        return ready


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs `main` on a fresh virtual clock; raises `Leak` if it leaves anything on the loop."""
    with asyncio.Runner(loop_factory=VirtualClockLoop, debug=False) as runner:
        watch = LoopWatch(runner.get_loop())
        result = runner.run(main)
        fail_on(watch.left())
        return result


def virtual_clock(
    test: Callable[Parameters, Coroutine[Any, Any, None]],
) -> Callable[Parameters, None]:
    """Makes an `async` test an ordinary one that runs on a virtual clock."""

    @functools.wraps(test)
    def on_virtual_clock(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        run(test(*args, **kwargs))

    return on_virtual_clock


def now() -> float:
    """Seconds since the running loop's start."""
    return asyncio.get_running_loop().time()
