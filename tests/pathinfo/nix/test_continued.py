"""Substituters that break off in the middle of a NAR, and others that have the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.pathinfo.nix.fake_upstream import Attempt, FakeUpstream
from tests.pathinfo.nix.house import LARGE, SMALL, House, described, narinfo, settled
from tvixstore.errors import CorruptData, StoreError, Unavailable
from tvixstore.pathinfo import Description
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.policy.limit import TokenBucket

BREAK = 2_000_000


def upstream(name: str, attempt: Attempt | StoreError, nar: bytes = LARGE) -> FakeUpstream:
    made = FakeUpstream(name=name)
    made.add(narinfo(nar), attempt)
    return made


def broken(nar: bytes = LARGE) -> Attempt:
    return Attempt(body=nar, breaks_at=BREAK, error=Unavailable("reset"))


async def read_with(house: House, *upstreams: FakeUpstream, retries: int = 0) -> bytes:
    services = [house.service(each, retries=retries) for each in upstreams]
    race = RacingPathInfoService(services, [each.name for each in upstreams])
    service = FallbackPathInfoService([race], ["class"])
    description = await described(services[0], narinfo(LARGE))
    stream = await service.open_nar(description, into=house.near)
    assert stream is not None
    try:
        return await stream.read_all()
    finally:
        await settled(house)
        for each in services:
            await each.aclose()


async def test_a_nar_goes_on_from_another_substituter_and_is_kept(house: House) -> None:
    one, other = upstream("one", broken()), upstream("other", Attempt(body=LARGE))
    assert await read_with(house, one, other) == LARGE
    assert (len(one.opened), len(other.opened)) == (1, 1)
    assert narinfo(LARGE).store_path.hash in house.near.infos


async def test_a_liar_in_the_first_half_is_found_out_by_the_whole(house: House) -> None:
    lie = b"x" * 100 + LARGE[100:]
    one, other = upstream("one", broken(lie)), upstream("other", Attempt(body=LARGE))
    with pytest.raises(CorruptData, match="one and other sent together"):
        await read_with(house, one, other)
    # What the other sent was right as a whole, and is kept.
    assert narinfo(LARGE).store_path.hash in house.near.infos


async def test_another_build_of_the_path_is_no_way_to_go_on(house: House) -> None:
    one = upstream("one", broken())
    other = upstream("other", Attempt(body=SMALL), SMALL)
    with pytest.raises(Unavailable, match="reset"):
        await read_with(house, one, other)
    assert not other.opened


PARTS = [(0, 2_500_000), (1_500_000, 1_000_000), (1_000_001, None), (BREAK - 3, 10), (BREAK, 99)]


async def read_part(
    house: House, offset: int, length: int | None, *upstreams: FakeUpstream
) -> bytes:
    async with group(house, *upstreams) as service:
        stream = await service.open_nar(await service_of(service), offset, length)
        assert stream is not None
        async with stream:
            return await stream.read_all()


async def service_of(service: FallbackPathInfoService) -> Description:
    described_so = await service.describe(narinfo(LARGE).store_path.hash)
    assert described_so is not None
    return described_so


@pytest.mark.parametrize(("offset", "length"), PARTS)
async def test_a_part_goes_on_from_another_substituter(
    house: House, offset: int, length: int | None
) -> None:
    one, other = upstream("one", broken()), upstream("other", Attempt(body=LARGE))
    wanted = LARGE[offset : None if length is None else offset + length]
    assert await read_part(house, offset, length, one, other) == wanted
    assert len(other.opened) == 1


# Another one has other bytes in what the first one sent.
LIE = LARGE[:1_600_000] + b"?" * 9 + LARGE[1_600_009:]


@pytest.mark.parametrize(("offset", "length"), PARTS[:3])
async def test_a_part_does_not_go_on_from_who_has_something_else_in_its_beginning(
    house: House, offset: int, length: int | None
) -> None:
    one, other = upstream("one", broken()), upstream("other", Attempt(body=LIE))
    with pytest.raises(Unavailable, match="reset"):
        await read_part(house, offset, length, one, other)
    assert len(other.opened) == 1


def busy(wait: float) -> Attempt:
    """One that breaks off, and says when to come back."""
    return Attempt(body=LARGE, breaks_at=BREAK, error=Unavailable("busy", retry_after=wait))


async def test_another_takes_over_while_one_is_asked_again(house: House) -> None:
    one, other = upstream("one", busy(0.5)), upstream("other", Attempt(body=LARGE))
    assert await read_with(house, one, other, retries=1) == LARGE
    assert len(other.opened) == 1
    assert narinfo(LARGE).store_path.hash in house.near.infos


async def test_one_who_is_asked_again_goes_on_if_nobody_else_has_it(house: House) -> None:
    one = FakeUpstream(name="one")
    one.add(narinfo(LARGE), busy(0.2), Attempt(body=LARGE))
    other = upstream("other", Attempt(body=SMALL), SMALL)
    assert await read_with(house, one, other, retries=1) == LARGE
    # Where it broke off: nothing was fetched twice.
    assert [resume and resume.offset for _, resume in one.opened] == [None, BREAK]
    assert not other.opened


async def test_where_all_are_in_doubt_the_first_that_recovers_is_taken(house: House) -> None:
    one, other = upstream("one", busy(0.2)), FakeUpstream(name="other")
    other.add(narinfo(LARGE), busy(0.2), Attempt(body=LARGE))
    assert await read_with(house, one, other, retries=1) == LARGE


async def test_where_all_fail_it_ends(house: House) -> None:
    one, other = upstream("one", busy(0.2)), upstream("other", busy(0.2))
    with pytest.raises(Unavailable, match="busy"):
        await read_with(house, one, other, retries=1)
    assert max(len(one.opened), len(other.opened)) <= 4


async def test_a_class_in_doubt_is_come_back_to(house: House) -> None:
    one = FakeUpstream(name="one")
    one.add(narinfo(LARGE), busy(0.2), Attempt(body=LARGE))
    lacking, behind = FakeUpstream(name="lacking"), FakeUpstream(name="behind")
    services = [house.service(each, retries=1) for each in (one, lacking, behind)]
    first = RacingPathInfoService(services[:2], ["one", "lacking"])
    service = FallbackPathInfoService([first, services[2]], ["first", "behind"])
    stream = await service.open_nar(await described(services[0], narinfo(LARGE)), into=house.near)
    assert stream is not None
    assert await stream.read_all() == LARGE
    await settled(house)
    assert [resume and resume.offset for _, resume in one.opened] == [None, BREAK]
    assert behind.asked
    for each in services:
        await each.aclose()


@asynccontextmanager
async def group(
    house: House, *upstreams: FakeUpstream, split: bool = False
) -> AsyncIterator[FallbackPathInfoService]:
    """All in one class; or each in one of its own, within a class, if `split`."""
    services = [house.service(each, retries=2) for each in upstreams]
    names = [each.name for each in upstreams]
    if split:
        inner = [
            RacingPathInfoService([each], [name])
            for each, name in zip(services, names, strict=True)
        ]
        service = FallbackPathInfoService(inner, names)
    else:
        service = FallbackPathInfoService([RacingPathInfoService(services, names)], ["class"])
    try:
        yield service
    finally:
        await settled(house)
        for each in services:
            await each.aclose()


@pytest.mark.parametrize("split", [False, True])
async def test_content_comes_from_another_while_one_is_asked_again(
    house: House, split: bool
) -> None:
    one, other = upstream("one", busy(9.0)), upstream("other", Attempt(body=LARGE))
    async with group(house, one, other, split=split) as service:
        info = await service.get(narinfo(LARGE).store_path.hash)
        assert info is not None and info.nar_sha256 == narinfo(LARGE).nar_sha256
        # It had not even tried again yet.
        assert (len(one.opened), len(other.opened)) == (1, 1)
        await house.fills.aclose()


@pytest.mark.parametrize("split", [False, True])
async def test_content_comes_from_one_who_is_asked_again_if_nobody_else_has_it(
    house: House, split: bool
) -> None:
    one = FakeUpstream(name="one")
    one.add(narinfo(LARGE), busy(0.2), Attempt(body=LARGE))
    other = upstream("other", Attempt(body=SMALL), SMALL)
    async with group(house, one, other, split=split) as service:
        info = await service.get(narinfo(LARGE).store_path.hash)
    assert info is not None
    assert [resume and resume.offset for _, resume in one.opened] == [None, BREAK]
    assert not other.opened


async def test_content_of_a_class_in_doubt_is_come_back_to(house: House) -> None:
    one = FakeUpstream(name="one")
    one.add(narinfo(LARGE), busy(0.2), Attempt(body=LARGE))
    lacking = FakeUpstream(name="lacking")
    async with group(house, one, lacking, split=True) as service:
        assert await service.get(narinfo(LARGE).store_path.hash) is not None
    assert [resume and resume.offset for _, resume in one.opened] == [None, BREAK]
    assert lacking.asked


async def test_content_that_nobody_brings_is_unknown(house: House) -> None:
    one, other = upstream("one", busy(0.1)), upstream("other", busy(0.1))
    async with group(house, one, other) as service:
        with pytest.raises(Unavailable, match="busy"):
            await service.get(narinfo(LARGE).store_path.hash)
    assert max(len(one.opened), len(other.opened)) <= 6


async def test_who_wants_to_be_left_alone_for_long_is_not_waited_for(house: House) -> None:
    one = upstream("one", busy(3600.0))
    with pytest.raises(Unavailable, match="busy"):
        await read_with(house, one, retries=2)
    assert len(one.opened) == 1


async def test_what_is_downloaded_is_paid_from_the_substituters_bucket(house: House) -> None:
    class Purse(TokenBucket):
        paid = 0

        async def pay(self, size: int) -> None:
            self.paid += size

    purse = Purse(1.0)
    service = house.service(upstream("one", Attempt(body=LARGE)))
    service.bucket = purse
    stream = await service.open_nar(await described(service, narinfo(LARGE)))
    assert stream is not None and await stream.read_all() == LARGE
    await settled(house)
    assert purse.paid == len(LARGE)
    await service.aclose()
