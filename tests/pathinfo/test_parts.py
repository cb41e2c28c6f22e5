"""Parts of NARs that break off, and members that go on with them."""

from __future__ import annotations

import pytest

from tests.pathinfo.scripted import Scripted, info_of, nar_of
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import StoreError, Unavailable
from tvixstore.pathinfo import Description, PathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.streams import ByteStream

NAR = nar_of()
# The same NAR by name, and something else by content.
OTHER = "olleh"


def group(*members: PathInfoService) -> FallbackPathInfoService:
    return FallbackPathInfoService(members, "abcdef"[: len(members)])


async def part(service: PathInfoService, offset: int, length: int | None) -> bytes:
    stream = await service.open_nar(info_of(), offset, length)
    assert stream is not None
    async with stream:
        return await stream.read_all()


PARTS = [(0, 60), (5, 50), (15, None), (38, 11)]


def wanted(offset: int, length: int | None) -> bytes:
    return NAR[offset : None if length is None else offset + length]


@pytest.mark.parametrize(("offset", "length"), PARTS)
def test_a_part_goes_on_in_its_middle(offset: int, length: int | None) -> None:
    @virtual_clock
    async def run() -> None:
        broken = Scripted(breaks_at=40), Scripted(breaks_at=46), Scripted(breaks_at=30)
        well = Scripted()
        for members in (
            [broken[0], well],
            [*broken, well],
            # Of groups within groups, each goes on as long as it can.
            [group(broken[0], broken[1]), group(broken[2], well)],
            [group(group(broken[0]), broken[2]), broken[1], well],
        ):
            assert await part(group(*members), offset, length) == wanted(offset, length)
        assert not any(each.open_streams for each in [*broken, well])

    run()


@pytest.mark.parametrize(("offset", "length"), PARTS[:3])
def test_a_part_goes_on_only_from_who_has_what_was_sent_of_it(
    offset: int, length: int | None
) -> None:
    @virtual_clock
    async def run() -> None:
        broken, liar, well = Scripted(breaks_at=40), Scripted(seed=OTHER), Scripted()
        service = group(broken, liar)
        with pytest.raises(Unavailable, match="connection reset"):
            await part(service, offset, length)
        # Whoever failed is asked last from now on, and so is who does not agree.
        assert await part(group(broken, liar, well), offset, length) == wanted(offset, length)
        assert not any(each.open_streams for each in (broken, liar, well))

    run()


@virtual_clock
async def test_a_part_that_ends_too_early_at_the_second_one_is_no_part() -> None:
    class Short(Scripted):
        async def open_nar(
            self,
            description: Description,
            offset: int = 0,
            length: int | None = None,
            into: PathInfoService | None = None,
        ) -> ByteStream | None:
            return await super().open_nar(description, offset, 25, into)

    for breaks_at in (15, 35):
        with pytest.raises(StoreError):
            await part(group(Scripted(breaks_at=breaks_at), Short()), 5, 60)


@virtual_clock
async def test_a_part_that_comes_whole_is_asked_of_one() -> None:
    one, other = Scripted(), Scripted()
    assert await part(group(one, other), 5, 50) == wanted(5, 50)
    assert not other.calls
