from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import Unavailable
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.policy.breaker import Breaker


@virtual_clock
async def test_all_that_is_asked_counts_together_and_is_left_alone_together() -> None:
    inner = Scripted(says=Unavailable("refused"))
    service = BreakerPathInfoService(inner, Breaker(failures=3, open_for=30.0))
    with pytest.raises(Unavailable):
        await service.describe(KEY)
    with pytest.raises(Unavailable):
        await service.get(KEY)
    with pytest.raises(Unavailable):
        await service.open_nar(info_of())
    for _ in range(3):
        with pytest.raises(Unavailable, match="left alone"):
            await service.describe(KEY)
        with pytest.raises(Unavailable, match="left alone"):
            await service.get(KEY)
        with pytest.raises(Unavailable, match="left alone"):
            await service.open_nar(info_of())
    assert len(inner.calls) == 3
    inner.says = info_of()
    await asyncio.sleep(30.0)
    assert await service.describe(KEY) == info_of()
    assert await service.get(KEY) == info_of()


@virtual_clock
async def test_clients_who_leave_their_downloads_open_no_breaker() -> None:
    inner = Scripted(after=3600.0)
    service = BreakerPathInfoService(inner, Breaker(failures=1))
    downloads = [
        asyncio.ensure_future(service.get(KEY)),
        asyncio.ensure_future(service.open_nar(info_of())),
    ]
    await asyncio.sleep(60.0)
    for download in downloads:
        download.cancel()
    await asyncio.wait(downloads)
    inner.after = 0.0
    assert await service.describe(KEY) == info_of()
