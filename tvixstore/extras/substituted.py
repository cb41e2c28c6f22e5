"""Extras of all substituters: classes in the order of priority, and a race within each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tvixstore.errors import Unavailable
from tvixstore.extras.names import ExtraName
from tvixstore.extras.source import ExtrasSource
from tvixstore.pathinfo.nix.upstream import Body
from tvixstore.policy.in_turn import in_turn
from tvixstore.policy.race import Member, race
from tvixstore.policy.ttl import TtlMap
from tvixstore.streams import ByteStream

Stream = TypeVar("Stream", bound=ByteStream)

# Absences that are remembered.
_CAPACITY = 100_000


@dataclass(eq=False)
class SubstitutedExtras:
    """Asks `classes` in order, the members of each at once; the first right answer is taken.

    Absent is the answer only if all say so; it is remembered for `negative_ttl` seconds.
    """

    classes: Sequence[Sequence[ExtrasSource]]
    negative_ttl: float = 60.0
    # Seconds for which an answer is waited for, over all classes.
    lookup_timeout: float = 10.0
    _absent: TtlMap[str, bool] = field(
        default_factory=lambda: TtlMap(_CAPACITY), init=False, repr=False
    )
    _forgettings: int = field(default=0, init=False, repr=False)

    async def open(self, name: ExtraName) -> ByteStream | None:
        """The extra as one of them has it, or `None`; raises `Unavailable` and `Skipped`."""
        return await self._first(name.path, lambda source: source.open(name))

    async def open_file(self, path: str) -> Body | None:
        """A file as one of them has it, undecoded."""
        return await self._first(path, lambda source: source.open_file(path))

    def forget(self, name: ExtraName) -> None:
        """It is somewhere by now."""
        self._absent.discard(name.path)

    def forget_all(self) -> int:
        """Forgets every absence; how many there were."""
        self._forgettings += 1
        count = len(self._absent)
        self._absent = TtlMap(_CAPACITY)
        return count

    async def _first(
        self, path: str, ask: Callable[[ExtrasSource], Coroutine[Any, Any, Stream | None]]
    ) -> Stream | None:
        if not self.classes or self._absent.get(path) is not None:
            return None
        forgettings = self._forgettings
        asking = [self._class_member(members, ask) for members in self.classes]
        try:
            async with asyncio.timeout(self.lookup_timeout) as scope:
                found = await in_turn(asking)
        except TimeoutError:
            if scope.expired():
                raise Unavailable(
                    f"no substituter said within {self.lookup_timeout:.3g} s whether it has {path}"
                ) from None
            raise
        if found is None:
            # Unless it may have come just before all absences were forgotten.
            if forgettings == self._forgettings:
                self._absent.put(path, True, self.negative_ttl)
            return None
        return found[1]

    def _class_member(
        self,
        members: Sequence[ExtrasSource],
        ask: Callable[[ExtrasSource], Coroutine[Any, Any, Stream | None]],
    ) -> Member[Stream]:
        racing = [Member(each.name, _asking(each, ask)) for each in members]

        async def answer() -> Stream | None:
            won = await race(racing, dispose=_close)
            return None if won is None else won[1]

        return Member(", ".join(each.name for each in members), answer)


def _asking(
    source: ExtrasSource, ask: Callable[[ExtrasSource], Coroutine[Any, Any, Stream | None]]
) -> Callable[[], Coroutine[Any, Any, Stream | None]]:
    return lambda: ask(source)


def _close(stream: ByteStream) -> Awaitable[None]:
    return stream.aclose()
