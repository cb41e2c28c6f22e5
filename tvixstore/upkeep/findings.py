"""What a check has found, and how far it has come: told as it goes on, and summed up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tvixstore.errors import StoreError
from tvixstore.kv import Damage
from tvixstore.log import Logger
from tvixstore.upkeep.service import Finding, Kind, Outcome, Progress, Summary

log = Logger("tvixstore.upkeep")

Report = Callable[[Finding], Awaitable[None]]


class Findings:
    """Of one check. Each goes to `report`; `progress` and `summary` are right at any time.

    `repair` says whether anything is to be done about them.
    """

    def __init__(self, report: Report, *, repair: bool) -> None:
        self.repair = repair
        self.summary = Summary()
        self.progress = Progress("begin", 0, None, 0)
        self._report = report

    def begin(self, phase: str, total: int | None) -> None:
        self.progress = Progress(phase, 0, total, self.summary.bytes)

    def advance(self, done: int, size: int = 0) -> None:
        """So many objects more of this phase are done, and so many bytes were read."""
        now = self.progress
        self.summary.bytes += size
        self.progress = Progress(now.phase, now.done + done, now.total, self.summary.bytes)

    async def add(self, kind: Kind, key: str, reason: str, outcome: Outcome) -> None:
        finding = Finding(kind, key, reason, outcome)
        self.summary.count(finding)
        log.warning("verify.found", kind=kind, key=key, reason=reason, outcome=outcome)
        await self._report(finding)

    async def settle(self, kind: Kind, damage: Damage, drop: Callable[[], Awaitable[bool]]) -> bool:
        """Adds what was confirmed to be wrong, after `drop` if that is wanted; whether it was
        dropped."""
        key = damage.key.hex()
        if damage.unread:
            await self.add(kind, key, damage.reason, "unread")
            return False
        if not self.repair:
            await self.add(kind, key, damage.reason, "found")
            return False
        try:
            dropped = await drop()
        except StoreError as error:
            await self.add(kind, key, f"{damage.reason}; not dropped: {error}", "failed")
            return False
        # Otherwise somebody else has mended it, or taken it away.
        if dropped:
            await self.add(kind, key, damage.reason, "dropped")
        return dropped
