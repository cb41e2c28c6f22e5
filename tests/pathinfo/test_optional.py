from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import CorruptData, Skipped, Unavailable, Untrusted
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.carrying import Carrying


def optional(inner: Scripted, failures: int = 1) -> OptionalPathInfoService:
    breaker = Breaker(failures=failures)
    return OptionalPathInfoService(BreakerPathInfoService(inner, breaker), "mirror", breaker)


@pytest.mark.parametrize("error", [Unavailable("refused"), CorruptData("lies")], ids=str)
def test_the_failure_that_opens_the_breaker_is_skipped_and_so_are_the_next(
    error: Exception,
) -> None:
    @virtual_clock
    async def run() -> None:
        inner = Scripted(says=error)
        service = optional(inner)
        for _ in range(3):
            with pytest.raises(Skipped, match=str(error)) as caught:
                await service.describe(KEY)
            assert caught.value.names == ("mirror",)
            assert not caught.value.answered
        assert inner.asked("describe") == 1
        with pytest.raises(Skipped):
            await service.get(KEY)
        with pytest.raises(Skipped):
            await service.open_nar(info_of())

    run()


@virtual_clock
async def test_a_failure_that_leaves_the_breaker_closed_is_unknown() -> None:
    service = optional(Scripted(says=Unavailable("refused")), failures=2)
    with pytest.raises(Unavailable) as caught:
        await service.describe(KEY)
    assert not isinstance(caught.value, Skipped)
    with pytest.raises(Skipped):
        await service.describe(KEY)


@virtual_clock
async def test_a_path_without_a_trusted_signature_is_skipped_and_no_other_path() -> None:
    inner = Scripted(says=Untrusted("no trusted signature"))
    service = optional(inner)
    with pytest.raises(Skipped, match="no trusted signature"):
        await service.describe(KEY)
    inner.says = info_of()
    assert await service.describe(KEY) == info_of()


@virtual_clock
async def test_answers_pass() -> None:
    assert await optional(Scripted()).describe(KEY) == info_of()
    assert await optional(Scripted(says=None)).describe(KEY) is None


@virtual_clock
async def test_nobody_waits_for_a_probe() -> None:
    inner = Scripted(says=Unavailable("refused"), after=2.0)
    breaker = Breaker(failures=1, open_for=30.0)
    carrying = Carrying(breaker)
    guarded = BreakerPathInfoService(inner, breaker, carrying)
    service = OptionalPathInfoService(guarded, "mirror", breaker, carrying)
    with pytest.raises(Skipped, match="refused"):
        await service.describe(KEY)
    await asyncio.sleep(30.0)
    began = now()
    for says in (Unavailable("refused"), info_of()):
        inner.says = says
        for _ in range(2):
            with pytest.raises(Skipped, match="refused"):
                await service.describe(KEY)
        assert now() == began
        await asyncio.sleep(40.0)
        began = now()
    assert inner.asked("describe") == 3
    assert await service.describe(KEY) == info_of()
