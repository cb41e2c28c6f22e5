"""Faults on purpose: what goes wrong with each call, from a seed or by a script.

The same seed gives the same faults to the same calls in the same order, so a run that failed can be
had again. Time is the loop's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from random import Random
from typing import Literal, TypeAlias, TypeVar, get_args

from tvixstore.errors import Unavailable
from tvixstore.streams import ByteStream

Result = TypeVar("Result")

Kind: TypeAlias = Literal["ok", "error", "absent", "truncate", "corrupt", "stall", "disconnect"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# What a stall takes, unless somebody gives up before. Not for ever: tests have to end.
STALL = 3600.0
# The pieces of a stream before the one that a fault strikes.
_LATEST = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one call: after `delay` seconds, `kind`.

    ok: it is passed on. error: it fails. absent: a lie, of what may be there. truncate: it ends too
    early, as if that were all. corrupt: something in it is changed. stall: nothing comes.
    disconnect: it breaks off; of a write, after it was done. Of a stream, the last four strike at
    piece number `at`, or at its last one.
    """

    kind: Kind = "ok"
    delay: float = 0.0
    at: int = 0


@dataclass(eq=False)
class Chaos:
    """The outcomes of calls, in the order of calling.

    By `script`, pairs of an outcome and for how many calls it goes, `None` for all that follow;
    what comes after it is ok. Or by `rates`, how many of all calls meet that kind of fault, and
    `latency`, the average of a delay between nothing and twice as much.
    """

    seed: str = "0"
    rates: Mapping[Kind, float] = field(default_factory=dict)
    latency: float = 0.0
    script: Sequence[tuple[Outcome, int | None]] = ()
    # How many calls met which kind.
    met: Counter[str] = field(default_factory=Counter, init=False)
    _calls: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._scripted = (
            outcome
            for outcome, times in self.script
            for outcome in (repeat(outcome) if times is None else repeat(outcome, times))
        )

    def draw(self) -> Outcome:
        """What becomes of the next call."""
        self._calls += 1
        # By its number: how many draws an earlier call took makes no difference.
        random = Random(f"{self.seed} {self._calls}")
        if self.script:
            outcome = next(self._scripted, Outcome())
        else:
            outcome = Outcome(self._kind(random.random()), random.uniform(0, 2 * self.latency))
        self.met[outcome.kind] += 1
        return replace(outcome, at=random.randrange(_LATEST))

    async def meet(self, *able: Kind) -> Outcome:
        """The next call's outcome, its delay over; raises what is an error.

        What the call is not `able` to show is an error, too.
        """
        outcome = self.draw()
        if outcome.delay:
            await asyncio.sleep(outcome.delay)
        if outcome.kind == "stall" and "stall" not in able:
            await stall()
        if outcome.kind != "ok" and outcome.kind not in able:
            raise Unavailable(f"chaos: {outcome.kind}")
        return outcome

    async def write(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """A write: it is done, or not, or done with nobody hearing of it."""
        outcome = await self.meet("disconnect")
        result = await call()
        if outcome.kind == "disconnect":
            raise Unavailable("chaos: disconnected after it was done")
        return result

    def _kind(self, drawn: float) -> Kind:
        for kind in KINDS:
            rate = self.rates.get(kind, 0.0)
            if drawn < rate:
                return kind
            drawn -= rate
        return "ok"


async def stall() -> None:
    """Nothing comes, for very long."""
    await asyncio.sleep(STALL)
    raise Unavailable("chaos: stalled")


class ChaoticStream(ByteStream):
    """`inner` with what `outcome` says."""

    def __init__(self, inner: ByteStream, outcome: Outcome) -> None:
        self._inner = inner
        self._outcome = outcome
        self._number = -1
        # Fetched ahead, so that a fault always strikes, be it at the last piece.
        self._next: bytes | None = None
        self._begun = False
        self._over = False

    async def __anext__(self) -> bytes:
        if self._outcome.kind == "ok":
            return await self._inner.__anext__()
        if not self._begun:
            self._begun = True
            self._next = await anext(self._inner, None)
        if self._over or self._next is None:
            raise StopAsyncIteration
        part, self._next = self._next, await anext(self._inner, None)
        self._number += 1
        strikes = self._number == self._outcome.at or (
            self._number < self._outcome.at and self._next is None
        )
        return await self._struck(part) if strikes else part

    async def aclose(self) -> None:
        self._next, self._over, self._begun = None, True, True
        await self._inner.aclose()

    async def _struck(self, part: bytes) -> bytes:
        if self._outcome.kind == "corrupt":
            return bytes([part[0] ^ 1]) + part[1:]
        if self._outcome.kind == "stall":
            await stall()
        if self._outcome.kind == "truncate":
            self._over = True
            if half := part[: len(part) // 2]:
                return half
            raise StopAsyncIteration
        raise Unavailable("chaos: disconnected")
