"""Asks services in the order of their priority, going on when one has nothing or fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tvixstore.directory.members import DirectoryMembers
from tvixstore.policy.in_turn import in_turn
from tvixstore.policy.race import Member

Result = TypeVar("Result")


@dataclass(eq=False)
class FallbackDirectoryService(DirectoryMembers):
    """Asks `members` in order."""

    async def _first(
        self,
        members: Sequence[Member[Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        return await in_turn(members)
