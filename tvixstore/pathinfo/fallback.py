"""Asks services in the order of their priority, going on when one has nothing or fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.info import Description
from tvixstore.pathinfo.members import PathInfoMembers
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.policy.deadline import bounded, within
from tvixstore.policy.timeout import Scope
from tvixstore.policy.tracing import here, note, spell
from tvixstore.policy.verdict import Verdict

# Of a member's share of time, what it knows of. It fails by itself then, with a reason that its
# breaker counts, before it would be cancelled without one.
_SOFT = 0.95


@dataclass(eq=False)
class FallbackPathInfoService(PathInfoMembers):
    """Asks `members`, or classes of members, in order.

    One `describe` takes at most `lookup_timeout` seconds. A member with others behind it gets at
    most half of what is left, so that one that hangs cannot eat up the time of all.
    """

    lookup_timeout: float = 10.0

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within(self.lookup_timeout)
        verdict = Verdict()
        for index, (name, member) in enumerate(zip(self.names, self.members, strict=True)):
            left = end - loop.time()
            share = left if index == len(self.members) - 1 else left / 2
            try:
                description = await _ask(name, member, path_hash, nar_sha256, share)
            except Exception as error:
                verdict.failed(name, error)
                continue
            if description is not None:
                self.won(path_hash, index)
                if index + 1 < len(self.members) and here() is not None:
                    note("fallback.not_asked", f"not asked: {', '.join(self.names[index + 1 :])}")
                return description
            verdict.absent()
        verdict.conclude()
        return None


async def _ask(
    name: str, member: PathInfoService, path_hash: bytes, nar_sha256: bytes | None, seconds: float
) -> Description | None:
    """What `member` says within `seconds`; raises `Unavailable` if that is nothing."""
    try:
        with bounded(seconds * _SOFT), Scope(seconds) as scope:
            return await member.describe(path_hash, nar_sha256)
    except TimeoutError:
        if scope.expired:
            note("lookup_timeout", f"{name} had no answer within its {spell(seconds)}", seconds)
            raise Unavailable(f"no answer within {seconds:.3g} s") from None
        raise
