"""Bugs, one for each invariant: a world with one of them has to be found out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tests.simulation.parts import REAL, Parts
from tvixstore.blob import BlobService, RacingBlobService
from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.metered import MeteredBlobService
from tvixstore.blob.mirror import MirrorBlobService
from tvixstore.blob.negative import NegativeBlobService
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.errors import StoreError, Unavailable
from tvixstore.pathinfo import Description, PathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.relay import is_hashed_above
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.hedge import Budget
from tvixstore.policy.quorum import Outcomes
from tvixstore.policy.race import Member, race
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.policy.timeout import Timeout
from tvixstore.streams import ByteStream

Result = TypeVar("Result")


class Believes(FallbackBlobService):
    """Hashes nothing."""

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        for member in self.members:
            try:
                if (stream := await member.open_read(digest, offset, length, size)) is not None:
                    return stream
            except StoreError:
                continue
        raise Unavailable("nobody")


class TakesUnknownForAbsent(FallbackBlobService):
    async def has(self, digest: Digest) -> bool:
        for member in self.members:
            try:
                if await member.has(digest):
                    return True
            except StoreError:
                continue
        return False


class StopsAtTheFirstFailure(FallbackBlobService):
    async def has(self, digest: Digest) -> bool:
        for member in self.members:
            if await member.has(digest):
                return True
        return False


@dataclass(eq=False)
class NeverGivesUp(BlobWrapper):
    timeout: Timeout


class RemembersUnknown(NegativeBlobService):
    async def has(self, digest: Digest) -> bool:
        try:
            return await super().has(digest)
        except Unavailable:
            self.absences.learn(digest, True, self.absences.moment())
            raise


class LeavesLateStreamsOpen(RacingBlobService):
    async def _first(
        self,
        members: Sequence[Member[Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        kept: set[asyncio.Task[Any]] = set()

        def shielded(member: Member[Result]) -> Member[Result]:
            async def ask() -> Result | None:
                task = asyncio.ensure_future(member.ask())
                kept.add(task)
                return await asyncio.shield(task)

            return Member(member.name, ask)

        return await race([shielded(member) for member in members], self.hedge)


class CountsSuccessesOnly(MeteredBlobService):
    async def has(self, digest: Digest) -> bool:
        answer = await self.inner.has(digest)
        self.meter.observe("has", "present" if answer else "absent", 0.0)
        return answer


class NeverOpens(Breaker):
    def _failed(self, started: float, reason: str, is_probe: bool) -> None:
        self.reason = reason


class LetsEverybodyIn(Breaker):
    def _admit(self, now: float) -> bool:
        return False


class Spends(Budget):
    def spend(self) -> bool:
        return True


class EachForHimself(SingleFlight[Any, Any]):
    async def run(self, key: Any, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return await work()


# The part that is replaced, and a word of what the invariant says then.
PLANTED: dict[str, tuple[Parts, str]] = {
    "never wrong bytes": (replace(REAL, fallback=Believes), "wrong bytes"),
    "never a false absent": (replace(REAL, fallback=TakesUnknownForAbsent), "a false absent"),
    "unknown is never kept as absent": (replace(REAL, negative=RemembersUnknown), "false absent"),
    "what a healthy member has is delivered": (
        replace(REAL, fallback=StopsAtTheFirstFailure),
        "not delivered",
    ),
    "every call ends in its time": (replace(REAL, timeout=NeverGivesUp), "took"),
    "nothing is left running": (replace(REAL, race=LeavesLateStreamsOpen), "left open"),
    "accounting adds up": (replace(REAL, metered=CountsSuccessesOnly), "were counted"),
    "breakers open": (replace(REAL, breaker=NeverOpens), "did not open"),
    "breakers keep out": (replace(REAL, breaker=LetsEverybodyIn), "though open"),
    "the hedge budget holds": (replace(REAL, budget=Spends), "races hedged"),
    "single-flight holds": (replace(REAL, flights=EachForHimself), "same work"),
}


class DoesNotGoOn(FallbackPathInfoService):
    """Leaves a NAR that breaks off to the client."""

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return await _of_the_first(self.members, description, offset, length, into)


async def _of_the_first(
    members: Sequence[PathInfoService],
    description: Description,
    offset: int,
    length: int | None,
    into: PathInfoService | None,
) -> ByteStream:
    for member in members:
        try:
            stream = await member.open_nar(description, offset, length, into)
        except StoreError:
            continue
        if stream is not None:
            return stream
    raise Unavailable("nobody has it")


class LeavesParts(FallbackPathInfoService):
    """Goes on with whole NARs alone."""

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        if not offset and length is None:
            return await super().open_nar(description, into=into)
        return await _of_the_first(self.members, description, offset, length, into)


@dataclass(eq=False)
class ForgetsTheOffset(PathInfoWrapper):
    """Goes on with a NAR from its beginning."""

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        begin = 0 if is_hashed_above() else offset
        return await self.inner.open_nar(description, begin, length, into)


def _forgetful(members: Sequence[PathInfoService], *args: Any) -> PathInfoService:
    return FallbackPathInfoService([ForgetsTheOffset(member) for member in members], *args)


PLANTED_IN_PATHS: dict[str, Callable[..., PathInfoService]] = {
    "it does not go on": DoesNotGoOn,
    "it does not go on with parts": LeavesParts,
    "it goes on from the beginning": _forgetful,
}


class LosesTheAnswer(MirrorBlobService):
    """Tells of a write before it was done."""

    async def put(self, data: bytes) -> Digest:
        return Digest.of(data)


class LeavesWritersOpen(MirrorBlobService):
    async def at_all(self, write: Any, dispose: Any = None) -> Outcomes[Any]:
        return await super().at_all(write)


def _one_less(members: Sequence[BlobService], names: Sequence[str], quorum: int) -> Any:
    return MirrorBlobService(members, names, max(1, quorum - 1))


def _unrepaired(members: Sequence[BlobService], names: Sequence[str], quorum: int) -> Any:
    return MirrorBlobService(members, names, quorum, repair=False)


PLANTED_IN_COPIES: dict[str, tuple[Callable[..., MirrorBlobService], str]] = {
    "it takes less than its quorum": (_one_less, "have it"),
    "it says so before it was done": (LosesTheAnswer, "have it"),
    "it never repairs": (_unrepaired, "not repaired"),
    "it leaves writers open": (LeavesWritersOpen, "writers left open"),
}
