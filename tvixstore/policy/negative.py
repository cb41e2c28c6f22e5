"""What was absent lately, so that asking again costs nothing for a while.

It is forgotten when somebody brings the key, on any way through the composition, which `Arrivals`
makes known; and on demand.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

from tvixstore.policy.ttl import TtlMap

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Absences(Generic[Key]):
    """Up to `capacity` keys that were absent, each for `ttl` seconds. Only "absent" is kept, never
    an unknown."""

    def __init__(self, ttl: float = 60.0, capacity: int = 100_000) -> None:
        self._ttl = ttl
        self._capacity = capacity
        self._absent: TtlMap[Key, bool] = TtlMap(capacity)
        self._arrivals = 0

    def __contains__(self, key: Key) -> bool:
        return self._absent.get(key) is not None

    def left(self, key: Key) -> float | None:
        """Seconds for which it still counts as absent; `None` if it does not."""
        return self._absent.left(key)

    async def ask(
        self,
        key: Key,
        call: Callable[[], Awaitable[Answer | None]],
        is_absent: Callable[[Answer | None], bool] = lambda answer: answer is None,
    ) -> Answer | None:
        """`None` where the key was absent lately, and otherwise what `call` says, remembered."""
        if key in self:
            return None
        moment = self.moment()
        answer = await call()
        self.learn(key, is_absent(answer), moment)
        return answer

    def moment(self) -> int:
        """Before a question: what to `learn` its answers with."""
        return self._arrivals

    def learn(self, key: Key, absent: bool, moment: int) -> None:
        """The key was absent, or was there, when it was asked for after `moment`."""
        if not absent:
            self._absent.discard(key)
        # An answer that something may have overtaken is not worth keeping.
        elif moment == self._arrivals:
            self._absent.put(key, True, self._ttl)

    def arrived(self, keys: Iterable[Key]) -> int:
        """Those keys are there now, or may be; how many of them were taken for absent."""
        self._arrivals += 1
        return sum(self._absent.discard(key) for key in keys)

    def forget(self) -> int:
        """Forgets everything; how many there were."""
        self._arrivals += 1
        count = len(self._absent)
        self._absent = TtlMap(self._capacity)
        return count


class Arrivals(Generic[Key]):
    """Tells everybody who remembers absences of keys that somebody has put, wherever it was."""

    def __init__(self) -> None:
        self._listeners: list[Absences[Key]] = []

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def subscribe(self, absences: Absences[Key]) -> None:
        self._listeners.append(absences)

    def unsubscribe(self, absences: Absences[Key]) -> None:
        self._listeners.remove(absences)

    def announce(self, keys: Iterable[Key]) -> int:
        """Those keys have come, or may have; how often one of them was taken for absent."""
        if not self._listeners:
            return 0
        come = list(keys)
        return sum(absences.arrived(come) for absences in self._listeners)

    def forget(self) -> int:
        """Has everybody forget everything; how much that was."""
        return sum(absences.forget() for absences in self._listeners)
