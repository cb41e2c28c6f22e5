"""Upkeep of another daemon's store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from tvixstore.errors import AbsentPath, CorruptData
from tvixstore.nix import StorePath
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.methods import FORGET_ABSENCES, LIST_PINS, PIN, UNPIN, VERIFY
from tvixstore.upkeep import (
    Event,
    Pinned,
    PinRequest,
    Summary,
    Upkeep,
    VerifyRequest,
)

# Messages that are read ahead.
_AHEAD: Final = 64


class GrpcUpkeep(Upkeep):
    """Of the store that `peer` keeps; it has to be a daemon of ours."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __repr__(self) -> str:
        return repr(self._peer)

    async def pin(self, request: PinRequest) -> Pinned | None:
        # It may have to be fetched, with all that it refers to.
        return await self._peer.ask(PIN, request, patient=True)

    async def unpin(self, store_path: StorePath) -> bool:
        return await self._peer.ask(UNPIN, store_path) is not None

    async def pins(self) -> AsyncGenerator[Pinned, None]:
        replies = await self._peer.serve(LIST_PINS, None, _AHEAD)
        if replies is None:
            raise CorruptData(f"{self._peer.name}: its pins are not found")
        async with replies:
            async for pinned in replies:
                yield pinned

    async def verify(self, request: VerifyRequest) -> AsyncGenerator[Event, None]:
        replies = await self._peer.serve(VERIFY, request, _AHEAD)
        if replies is None:
            names = " ".join(map(str, request.store_paths))
            raise AbsentPath(f"{self._peer.name} does not have all of {names}")
        event: Event | None = None
        async with replies:
            async for event in replies:
                yield event
        if not isinstance(event, Summary):
            raise CorruptData(f"{self._peer.name}: the check ends well, and without a summary")


async def forget_absences(peer: Peer, path_hashes: Sequence[bytes] = ()) -> int:
    """Has a daemon of ours ask anew for what was absent; how many answers it remembered."""
    forgotten = await peer.ask(FORGET_ABSENCES, path_hashes, patient=True)
    if forgotten is None:
        raise CorruptData(f"{peer.name}: what it has forgotten is not found")
    return forgotten
