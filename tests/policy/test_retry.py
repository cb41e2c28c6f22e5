from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_clock import now, virtual_clock
from tvixstore import policy
from tvixstore.errors import (
    CorruptData,
    Incomplete,
    InvalidData,
    Skipped,
    StorageFull,
    StoreError,
    Unavailable,
    Unreachable,
)
from tvixstore.policy.deadline import bounded
from tvixstore.policy.retry import RETRIED, Retry, is_retried


class Flaky:
    """Fails with each of `errors` in turn, then answers; notes when it was called."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[float] = []

    async def __call__(self) -> str:
        self.calls.append(now())
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


class Longest(Random):
    """Always the longest pause that the jitter allows."""

    def uniform(self, a: float, b: float) -> float:
        return b


def down(retry_after: float | None = None) -> Unavailable:
    return Unavailable("down", retry_after=retry_after)


@virtual_clock
async def test_it_tries_again_until_there_is_an_answer() -> None:
    flaky = Flaky(down(), down())
    assert await Retry(attempts=3).run(flaky) == "answer"
    assert len(flaky.calls) == 3


@virtual_clock
async def test_the_last_attempts_error_is_raised() -> None:
    flaky = Flaky(down(), down(), Unavailable("still down"))
    with pytest.raises(Unavailable, match="still down"):
        await Retry(attempts=3).run(flaky)
    assert len(flaky.calls) == 3


@virtual_clock
async def test_whom_no_connection_reaches_in_time_is_asked_again_only_by_whoever_wants_to() -> None:
    flaky = Flaky(Unreachable("nobody is there"))
    assert await Retry(attempts=3).run(flaky) == "answer"
    flaky = Flaky(Unreachable("nobody is there"))
    with pytest.raises(Unreachable):
        await Retry(attempts=3, reconnects=False).run(flaky)
    assert len(flaky.calls) == 1
    flaky = Flaky(down())
    assert await Retry(attempts=3, reconnects=False).run(flaky) == "answer"


@virtual_clock
async def test_pauses_double_up_to_the_longest() -> None:
    flaky = Flaky(*[down()] * 5)
    await Retry(attempts=6, min_delay=0.1, max_delay=0.5, random=Longest()).run(flaky)
    assert flaky.calls == pytest.approx([0, 0.1, 0.3, 0.7, 1.2, 1.7])


@given(st.integers(), st.floats(0.01, 1), st.floats(1, 10))
@virtual_clock
async def test_jitter_stays_between_nothing_and_the_doubled_delay(
    seed: int, min_delay: float, max_delay: float
) -> None:
    flaky = Flaky(*[down()] * 5)
    retry = Retry(attempts=6, min_delay=min_delay, max_delay=max_delay, random=Random(seed))
    await retry.run(flaky)
    for number, (before, after) in enumerate(zip(flaky.calls, flaky.calls[1:], strict=False)):
        assert 0 <= after - before <= min(max_delay, min_delay * 2**number) + 1e-9


@pytest.mark.parametrize(
    "error",
    [
        Skipped("down", ["a"], answered=True),
        Incomplete("a part is missing", bytes(32)),
        StorageFull("full"),
        CorruptData("lies"),
        InvalidData("nonsense"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_asking_again_cannot_help_is_raised_at_once(error: StoreError) -> None:
    flaky = Flaky(error)

    @virtual_clock
    async def run() -> None:
        with pytest.raises(type(error)):
            await Retry(attempts=3).run(flaky)

    run()
    assert flaky.calls == [0]


@virtual_clock
async def test_it_is_not_asked_sooner_than_it_wants_to_be() -> None:
    flaky = Flaky(down(retry_after=1.5))
    await Retry(attempts=3, max_delay=2.0).run(flaky)
    assert flaky.calls == [0, 1.5]


@pytest.mark.parametrize(
    ("deadline", "retry_after", "calls"),
    [(None, 2.5, 1), (None, 1.5, 2), (4.0, 3.5, 2), (4.0, 4.0, 1), (1.0, 1.5, 1)],
)
def test_it_gives_up_at_once_where_the_pause_does_not_fit(
    deadline: float | None, retry_after: float, calls: int
) -> None:
    flaky = Flaky(down(retry_after))

    @virtual_clock
    async def run() -> None:
        try:
            if deadline is None:
                await Retry(max_delay=2.0).run(flaky)
            else:
                with bounded(deadline):
                    await Retry(max_delay=2.0).run(flaky)
        except Unavailable:
            assert now() == 0

    run()
    assert len(flaky.calls) == calls


@virtual_clock
async def test_it_never_sleeps_past_the_deadline() -> None:
    flaky = Flaky(*[down()] * 9)
    with pytest.raises(Unavailable), bounded(1.0):
        await Retry(attempts=9, min_delay=0.4, max_delay=10.0, random=Longest()).run(flaky)
    assert flaky.calls == [0, 0.4]
    assert now() < 1.0


def every(kind: type[StoreError]) -> Iterator[type[StoreError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


def test_of_every_error_it_is_decided_whether_it_is_retried() -> None:
    for module in iter_modules(policy.__path__, "tvixstore.policy."):
        import_module(module.name)
    # Rooms further up may have kinds of their own, of which what they derive from decides.
    rooms = ("tvixstore.errors", "tvixstore.policy.")
    ours = {kind for kind in every(StoreError) if kind.__module__.startswith(rooms)}
    assert {kind.__name__ for kind in ours - set(RETRIED)} == set()
    assert {kind.__name__ for kind in set(RETRIED) - ours} == set()


def test_an_error_from_elsewhere_is_retried_like_what_it_derives_from() -> None:
    class Busy(Unavailable):
        pass

    class Broken(CorruptData):
        pass

    assert is_retried(Busy("x")) and not is_retried(Broken("x"))
    assert not is_retried(OSError("x"))


@pytest.mark.parametrize("kind", [kind for kind, again in RETRIED.items() if not again])
def test_what_is_final_is_raised_at_once(kind: type[StoreError]) -> None:
    @virtual_clock
    async def run() -> None:
        error = kind.__new__(kind)
        flaky = Flaky(error)
        with pytest.raises(kind):
            await Retry(attempts=3).run(flaky)
        assert len(flaky.calls) == 1

    run()
