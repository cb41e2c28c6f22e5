"""Admin: what operators ask of the store that this daemon keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from grpclib.const import Status

from tvixstore.errors import AbsentPath, Unsupported
from tvixstore.log import Logger
from tvixstore.nix import StorePath, nixbase32
from tvixstore.rpc.server.refusals import Refusal, absent
from tvixstore.upkeep import Event, Pinned, PinRequest, Upkeep, VerifyRequest

_log = Logger("tvixstore.rpc")

# Paths that a line of the log names.
_NAMED: Final = 10


@dataclass(eq=False, slots=True)
class AdminHandlers:
    # `None`: nothing is kept here.
    upkeep: Upkeep | None
    draining: asyncio.Event
    forget: Callable[[Collection[bytes]], Awaitable[int]] | None

    async def pin(self, request: PinRequest) -> Pinned:
        try:
            pinned = await self._upkeep().pin(request)
        except AbsentPath as error:
            raise Refusal(Status.NOT_FOUND, str(error)) from error
        except Unsupported as error:
            raise _never(error) from error
        if pinned is None:
            raise absent(request.store_path)
        return pinned

    async def unpin(self, store_path: StorePath) -> bool:
        try:
            if not await self._upkeep().unpin(store_path):
                raise Refusal(Status.NOT_FOUND, f"{store_path} is not pinned")
        except Unsupported as error:
            raise _never(error) from error
        return True

    async def pins(self, request: None) -> AsyncGenerator[Pinned, None]:
        try:
            async with aclosing(self._upkeep().pins()) as pins:
                async for pinned in pins:
                    yield pinned
        except Unsupported as error:
            raise _never(error) from error

    async def forget_absences(self, path_hashes: Sequence[bytes]) -> int:
        if self.forget is None:
            raise Refusal(Status.FAILED_PRECONDITION, "this daemon remembers no absences")
        count = await self.forget(path_hashes)
        names = ", ".join(map(nixbase32.encode, path_hashes[:_NAMED]))
        _log.info("absences.forgotten", key=names or None, paths=len(path_hashes), count=count)
        return count

    async def verify(self, request: VerifyRequest) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(self._upkeep().verify(request)) as events:
                async for event in events:
                    yield event
                    if self.draining.is_set():
                        # It may have hours to go, and whoever stops the daemon has not.
                        raise Refusal(Status.UNAVAILABLE, "the server is shutting down")
        except AbsentPath as error:
            raise Refusal(Status.NOT_FOUND, str(error)) from error
        except Unsupported as error:
            raise _never(error) from error

    def _upkeep(self) -> Upkeep:
        if self.upkeep is None:
            raise Unsupported("this daemon keeps nothing that could be pinned or verified")
        return self.upkeep


def _never(error: Unsupported) -> Refusal:
    """Other than a call that is not known at all."""
    return Refusal(Status.FAILED_PRECONDITION, str(error))
