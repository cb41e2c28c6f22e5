from __future__ import annotations

import pytest

from tests.blob.scripted import Scripted, read
from tests.blob.test_racing import DATA, DIGEST, holder
from tests.support.virtual_clock import virtual_clock
from tvixstore.blob import FallbackBlobService
from tvixstore.errors import ReadOnly, Unavailable


def fallback(*members: Scripted) -> FallbackBlobService:
    return FallbackBlobService(members, "abcdef"[: len(members)])


@virtual_clock
async def test_the_second_is_asked_only_where_the_first_has_nothing() -> None:
    first, second = holder(), holder()
    service = fallback(first, second)
    assert await service.read(DIGEST) == DATA
    assert await service.has(DIGEST)
    assert await service.chunks(DIGEST) == []
    assert not second.calls
    first.blobs.clear()
    assert await service.read(DIGEST) == DATA


@virtual_clock
async def test_one_that_fails_is_passed_over() -> None:
    service = fallback(holder(fails=Unavailable("down")), holder())
    assert await service.read(DIGEST) == DATA
    assert await read(await service.open_read(DIGEST, 5, 6)) == DATA[5:11]
    assert await service.has(DIGEST)


@virtual_clock
async def test_absent_only_if_all_say_so() -> None:
    assert await fallback(Scripted(), Scripted()).open_read(DIGEST) is None
    with pytest.raises(Unavailable, match="a: down"):
        await fallback(holder(fails=Unavailable("down")), Scripted()).open_read(DIGEST)


@virtual_clock
async def test_one_that_lies_from_the_start_is_passed_over() -> None:
    liar = holder(100_000)
    liar.lies[DIGEST] = b"?" * len(DATA)
    assert await fallback(liar, holder()).read(DIGEST) == DATA


@virtual_clock
async def test_the_next_goes_on_where_one_breaks() -> None:
    members = holder(breaks_at=300_000), holder(breaks_at=500_000), holder()
    assert await fallback(*members).read(DIGEST) == DATA
    assert [member.open_streams for member in members] == [0, 0, 0]


@virtual_clock
async def test_a_write_that_fails_is_not_tried_elsewhere() -> None:
    service = fallback(Scripted(full=ReadOnly("taken back")), Scripted())
    with pytest.raises(ReadOnly, match="taken back"):
        async with await service.open_write() as writer:
            await writer.write(b"x")
