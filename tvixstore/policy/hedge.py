"""When the next member of a race is asked, in which order, and how often that may be in vain.

The delay is fixed, or learned: a member is given as long as it takes for nearly all of its answers
(`"p95"`), and then somebody else is asked as well. Asking more than one costs upstreams requests,
so those that only a delay brought about are paid from a budget, which grows with the races run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tvixstore.policy.latency import Latencies

LEARNED = "p95"
_QUANTILE = 0.95
# Until so many answers are known, the quantile says little.
_OBSERVATIONS = 5.0
_UNKNOWN_DELAY = 0.1
# Less would hedge on noise, more would be no hedge.
_SHORTEST = 0.001
_LONGEST = 2.0


@dataclass(eq=False)
class Budget:
    """Each race earns `share` of a hedge, and up to `most` are saved; so many there are at first.

    Of n races, at most n · `share` + `most` are hedged.
    """

    share: float = 0.1
    most: float = 10.0
    _saved: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._saved = self.most

    def earn(self) -> None:
        self._saved = min(self.most, self._saved + self.share)

    def spend(self) -> bool:
        """Whether there is a hedge to spend; it is spent then."""
        # A tenth added ten times is a little less than one.
        if self._saved < 1.0 - 1e-9:
            return False
        self._saved -= 1.0
        return True


@dataclass(eq=False)
class Hedging:
    """How one group of members races: `delay` in seconds, 0 for all at once, or `"p95"`.

    With a delay above 0 the members of a group are asked in the order of their measured latencies.
    One of whom nothing is known comes first: that is how it becomes known.
    """

    delay: float | str = 0.0
    budget: Budget = field(default_factory=Budget)
    # How many races there were, and how often a delay had one more member asked.
    races: int = field(default=0, init=False)
    hedges: int = field(default=0, init=False)
    _known: dict[str, Latencies] = field(default_factory=dict, init=False, repr=False)

    @property
    def at_once(self) -> bool:
        """Whether all are asked at once, which costs no budget: nobody asked for less."""
        return self.delay == 0

    def of(self, name: str) -> Latencies:
        """What is known of that member."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Latencies()
        return known

    def know(self, name: str, latencies: Latencies) -> None:
        """Has `latencies` be what is known of that member."""
        self._known[name] = latencies

    def begin(self) -> None:
        """A race begins."""
        self.races += 1
        self.budget.earn()

    def order(self, names: Sequence[str], set_back: Collection[int] = ()) -> list[int]:
        """The places of `names` in the order in which to ask them; those `set_back` come last."""
        places = list(range(len(names)))
        if self.at_once or len(places) < 2:
            return places

        def turn(place: int) -> tuple[bool, float]:
            return place in set_back, self.of(names[place]).quantile(0.5) or 0.0

        return sorted(places, key=turn)

    def after(self, name: str) -> float:
        """Seconds that the member of that name gets before the next one is asked, too."""
        if not isinstance(self.delay, str):
            return self.delay
        known = self.of(name)
        learned = known.quantile(_QUANTILE) if known.weight >= _OBSERVATIONS else None
        return _UNKNOWN_DELAY if learned is None else min(_LONGEST, max(_SHORTEST, learned))

    def may_hedge(self) -> bool:
        """Whether one more member may be asked though nobody failed; it is paid for then."""
        if self.at_once:
            return True
        if not self.budget.spend():
            return False
        self.hedges += 1
        return True
