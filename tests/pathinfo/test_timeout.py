from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, nar_of, read
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.policy.deadline import bounded
from tvixstore.policy.timeout import Timeout


@virtual_clock
async def test_an_answer_in_time_is_the_answer() -> None:
    service = TimeoutPathInfoService(Scripted(after=4.9), Timeout(5.0))
    assert await service.describe(KEY) == info_of()
    assert await read(await service.open_nar(info_of())) == nar_of()


@virtual_clock
async def test_no_answer_in_time_is_unknown() -> None:
    service = TimeoutPathInfoService(Scripted(after=None), Timeout(5.0))
    with pytest.raises(Unavailable, match="no answer within 5 s"):
        await service.describe(KEY)
    assert now() == 5.0


@virtual_clock
async def test_the_callers_earlier_deadline_comes_first() -> None:
    service = TimeoutPathInfoService(Scripted(after=None), Timeout(5.0))
    with bounded(2.0), pytest.raises(Unavailable, match="no answer within 2 s"):
        await service.describe(KEY)
    assert now() == 2.0


@virtual_clock
async def test_a_download_takes_as_long_as_it_takes() -> None:
    service = TimeoutPathInfoService(Scripted(after=600.0), Timeout(5.0))
    assert await service.get(KEY) == info_of()
    assert await read(await service.open_nar(info_of())) == nar_of()


@virtual_clock
async def test_a_stream_takes_as_long_as_its_reader_does() -> None:
    stream = await TimeoutPathInfoService(Scripted(), Timeout(5.0)).open_nar(info_of())
    assert stream is not None
    async with stream:
        first = await anext(stream)
        await asyncio.sleep(600.0)
        assert first + await read(stream) == nar_of()


@virtual_clock
async def test_somebody_elses_timeout_is_not_ours() -> None:
    service = TimeoutPathInfoService(Scripted(says=TimeoutError("from the socket")), Timeout(5.0))
    with pytest.raises(TimeoutError, match="from the socket"):
        await service.describe(KEY)
