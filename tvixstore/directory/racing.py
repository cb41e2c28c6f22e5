"""Asks several services at once, or shortly after each other, and takes the first right answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tvixstore.directory.members import DirectoryMembers
from tvixstore.policy.hedge import Hedging
from tvixstore.policy.race import Member, race

Result = TypeVar("Result")


@dataclass(eq=False)
class RacingDirectoryService(DirectoryMembers):
    """Races `members`, as `hedge` says: all at once, or each some time after the one before.

    Whose verified root of a closure comes first delivers the rest, too.
    """

    hedge: Hedging = field(default_factory=Hedging)

    async def _first(
        self,
        members: Sequence[Member[Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        return await race(members, self.hedge, dispose)
