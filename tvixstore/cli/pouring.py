"""Bytes on standard output: at the pace of whoever reads them, and no longer than he does."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from tvixstore.cli.running import BROKEN_PIPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvixstore.pools import Pools
    from tvixstore.streams import ByteStream

# So much is written in one go.
_PIECE: Final = 256 << 10


async def pour(stream: ByteStream, pools: Pools) -> int:
    """Writes all of `stream`, and closes it; what to exit with."""
    async with stream:
        parts: list[bytes] = []
        held = 0
        try:
            async for part in stream:
                parts.append(part)
                held += len(part)
                if held >= _PIECE:
                    await pools.files.run(write_out, parts)
                    parts, held = [], 0
            await pools.files.run(write_out, parts)
        except BrokenPipeError:
            return BROKEN_PIPE
    return 0


def write_out(parts: Sequence[bytes]) -> None:
    """Writes to standard output, past what Python would keep back."""
    descriptor = sys.stdout.fileno()
    view = memoryview(b"".join(parts))
    while view:
        view = view[os.write(descriptor, view) :]
