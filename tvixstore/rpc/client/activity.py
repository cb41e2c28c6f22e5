"""What is under way at another daemon."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Final

from tvixstore.errors import CorruptData
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
        snapshot = json.loads(document)
    except ValueError as error:
        raise CorruptData(f"{peer.name}: its snapshot is no JSON: {error}") from error
    if not isinstance(snapshot, dict):
        raise CorruptData(f"{peer.name}: its snapshot is no JSON object")
    return snapshot
