"""What another daemon tells of itself."""

from __future__ import annotations

import json
from typing import Any

from tvixstore.errors import CorruptData
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.insight_messages import Explain
from tvixstore.rpc.methods import EXPLAIN


async def explain(peer: Peer, path_hash: bytes, *, dry_run: bool = False) -> dict[str, Any] | None:
    """Its document about a path; `None` if that was not asked for lately, nor is now.

    It has to be a daemon of ours.
    """
    # A dry run takes as long as a lookup.
    text = await peer.ask(EXPLAIN, Explain(path_hash, dry_run), patient=dry_run)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptData(f"{peer.name}: its explanation is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptData(f"{peer.name}: its explanation is not an object")
    return document
