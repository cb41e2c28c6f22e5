"""Asks several services at once, or shortly after each other, and takes the first right answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tvixstore.blob.members import BlobMembers
from tvixstore.policy.race import Member, race

Result = TypeVar("Result")


@dataclass(eq=False)
class RacingBlobService(BlobMembers):
    """Races `members` with a hedge delay of `hedge` seconds (0: all are asked at once).

    Whose first verified piece of a blob comes first delivers the rest, too.
    """

    hedge: float = 0.0

    async def _first(
        self,
        members: Sequence[Member[Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        return await race(members, self.hedge, dispose)
