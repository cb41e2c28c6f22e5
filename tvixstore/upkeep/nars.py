"""NARs rendered and hashed for nobody who waits: in the background pool, some at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tvixstore.nar import NarIdentity, render

if TYPE_CHECKING:
    from tvixstore.castore import Node
    from tvixstore.pools import Pool
    from tvixstore.tree import Content

# What a thread hashes in one go.
_GATHERED: Final = 1 << 20


async def identify(
    content: Content, node: Node, pool: Pool, read: Callable[[int], None]
) -> NarIdentity:
    """What the NAR of `node` is known by, whatever is remembered of it; `read` counts its bytes.

    Raises what `render` does.
    """
    hashed = hashlib.sha256()
    size = 0
    parts: list[bytes] = []
    held = 0
    async with render(content, node) as nar:
        async for part in nar:
            parts.append(part)
            held += len(part)
            if held >= _GATHERED:
                await pool.run(_hash, hashed, parts)
                read(held)
                size += held
                parts, held = [], 0
    await pool.run(_hash, hashed, parts)
    read(held)
    return NarIdentity(size + held, hashed.digest())


def _hash(hashed: hashlib._Hash, parts: list[bytes]) -> None:
    """In a thread."""
    for part in parts:
        hashed.update(part)
