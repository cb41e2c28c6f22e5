"""How long somebody takes to answer: a histogram that forgets, and that learns from who gave up.

Whoever is cancelled after a second took longer than a second. To leave that out would make a member
look the faster, the more often it is too slow; to take it for a second would, too. Such a time is
*censored*, and the distribution is estimated as Kaplan and Meier do: an observation counts among
those who were still waited for at that time.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

# Bounds grow by a quarter, from a tenth of a millisecond to over two minutes.
_SMALLEST = 0.0001
_GROWTH = 1.25
_BOUNDS = 64
# Below this little is known, as little as if nobody had ever been asked.
_ENOUGH = 0.5


def _place(seconds: float) -> int:
    if seconds <= _SMALLEST:
        return 0
    return min(_BOUNDS - 1, math.ceil(math.log(seconds / _SMALLEST, _GROWTH) - 1e-9))


def _bound(place: int) -> float:
    return _SMALLEST * _GROWTH**place


@dataclass(eq=False)
class Latencies:
    """The answers of one member; what is `half_life` seconds old counts half."""

    half_life: float = 300.0
    _answered: list[float] = field(default_factory=lambda: [0.0] * _BOUNDS, init=False, repr=False)
    _censored: list[float] = field(default_factory=lambda: [0.0] * _BOUNDS, init=False, repr=False)
    _since: float | None = field(default=None, init=False, repr=False)

    def answered(self, seconds: float) -> None:
        """It answered after so long."""
        self._decay()
        self._answered[_place(seconds)] += 1.0

    def gave_up(self, seconds: float) -> None:
        """It had not answered after so long."""
        self._decay()
        # Where it falls between two bounds, it is the lower one that was reached for certain.
        place = _place(seconds)
        self._censored[max(0, place - 1) if seconds < _bound(place) else place] += 1.0

    def quantile(self, share: float) -> float | None:
        """Seconds within which that share of the answers comes; `None` if too little is known.

        Where even the longest of those who were waited for leave it open, it is that longest time:
        the least that it can be.
        """
        self._decay()
        at_risk = sum(self._answered) + sum(self._censored)
        if at_risk < _ENOUGH:
            return None
        surviving, longest = 1.0, 0
        for place in range(_BOUNDS):
            answered, censored = self._answered[place], self._censored[place]
            if answered + censored < 1e-9:
                continue
            longest = place
            surviving *= 1.0 - min(1.0, answered / at_risk)
            if 1.0 - surviving >= share - 1e-9:
                break
            at_risk -= answered + censored
        return _bound(longest)

    @property
    def weight(self) -> float:
        """How much is known: the number of observations, old ones counting less."""
        self._decay()
        return sum(self._answered) + sum(self._censored)

    def _decay(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
        # In steps, so that a busy member's table is not gone through for every answer.
        elapsed = now - self._since
        if elapsed < self.half_life / 20:
            return
        factor = 0.5 ** (elapsed / self.half_life)
        self._answered = [weight * factor for weight in self._answered]
        self._censored = [weight * factor for weight in self._censored]
        self._since = now
