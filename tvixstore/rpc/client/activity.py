"""What is under way at another daemon."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from tvixstore.errors import CorruptData, InvalidData
from tvixstore.nix.json_text import parse_object
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.methods import WATCH

_AHEAD: Final = 4


async def watch(peer: Peer, every: float) -> AsyncGenerator[dict[str, Any], None]:
    """Snapshots of what `peer`, a daemon of ours, is doing, `every` so many seconds; the first at
    once. Ends when the daemon does, or raises `Unavailable` then."""
    replies = await peer.serve(WATCH, every, _AHEAD)
    if replies is None:
        raise CorruptData(f"{peer.name}: what it is doing is not found")
    async with replies:
        async for document in replies:
            yield _parsed(peer, document)


def _parsed(peer: Peer, document: str) -> dict[str, Any]:
    try:
        return parse_object(document.encode())
    except InvalidData as error:
        raise CorruptData(f"{peer.name}: what it does cannot be read: {error}") from error
