from __future__ import annotations

from collections.abc import Awaitable

import pytest

from tvixstore.blob import MemoryBlobService, ReadOnlyBlobService
from tvixstore.errors import ReadOnly


async def test_whoever_writes_is_refused_before_a_byte_was_taken() -> None:
    inner = MemoryBlobService()
    digest = await inner.put(b"here")
    service = ReadOnlyBlobService(inner)
    calls: list[Awaitable[object]] = [
        service.open_write(),
        service.put(b"x"),
        service.put_many([b"x"]),
    ]
    for call in calls:
        with pytest.raises(ReadOnly):
            await call
    assert len(inner.blobs) == 2
    assert await service.read(digest) == b"here"
