from __future__ import annotations

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, read_until_it_breaks
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.policy.retry import Retry


@virtual_clock
async def test_a_description_is_asked_for_again_and_a_download_is_not() -> None:
    inner = Scripted(says=Unavailable("down"))
    service = RetryPathInfoService(inner, Retry(attempts=3))
    with pytest.raises(Unavailable):
        await service.describe(KEY)
    with pytest.raises(Unavailable):
        await service.get(KEY)
    with pytest.raises(Unavailable):
        await service.open_nar(info_of())
    assert [inner.asked(call) for call in ("describe", "get", "open_nar")] == [3, 1, 1]


@virtual_clock
async def test_a_lie_is_not_asked_for_twice() -> None:
    inner = Scripted(says=CorruptData("wrong key"))
    with pytest.raises(CorruptData):
        await RetryPathInfoService(inner).describe(KEY)
    assert inner.asked("describe") == 1


@virtual_clock
async def test_a_stream_that_breaks_is_not_begun_again() -> None:
    inner = Scripted(breaks_at=40)
    stream = await RetryPathInfoService(inner).open_nar(info_of())
    assert len(await read_until_it_breaks(stream)) == 40
    assert inner.asked("open_nar") == 1
    assert inner.open_streams == 0
