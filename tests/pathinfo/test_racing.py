from __future__ import annotations

import asyncio

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, nar_of, read, read_until_it_breaks
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import CorruptData, ReadOnly, Skipped, Unavailable, Unsupported
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.policy.hedge import Hedging


def race(*members: Scripted, hedge: float = 0.0) -> RacingPathInfoService:
    return RacingPathInfoService(members, "abcdef"[: len(members)], Hedging(hedge))


def skipped(name: str) -> Skipped:
    return Skipped("down", [name], answered=False)


@virtual_clock
async def test_a_black_hole_does_not_slow_down_a_healthy_member() -> None:
    service = race(Scripted(after=None), Scripted(after=0.2))
    assert await service.describe(KEY) == info_of()
    assert now() == 0.2


@virtual_clock
async def test_a_hedge_delay_spares_the_second_member() -> None:
    first, second = Scripted(after=0.4), Scripted()
    assert await race(first, second, hedge=0.5).describe(KEY) == info_of()
    assert second.calls == []


@virtual_clock
async def test_absent_only_if_all_say_so() -> None:
    assert await race(Scripted(None), Scripted(None, after=1.0)).describe(KEY) is None
    with pytest.raises(Unavailable, match="b: down"):
        await race(Scripted(None), Scripted(Unavailable("down"))).describe(KEY)
    with pytest.raises(Skipped) as caught:
        await race(Scripted(None), Scripted(skipped("b"))).describe(KEY)
    assert caught.value.answered


@virtual_clock
async def test_a_pinned_nar_hash_is_passed_on() -> None:
    wanted = info_of("other")
    service = race(Scripted(), Scripted(wanted, after=1.0))
    assert await service.describe(KEY, wanted.nar_sha256) == wanted
    assert await service.describe(KEY, bytes(32)) is None


@virtual_clock
async def test_the_nar_comes_from_the_winner_alone() -> None:
    first, second = Scripted(after=1.0), Scripted(after=0.2)
    service = race(first, second)
    description = await service.describe(KEY)
    assert description is not None
    into = MemoryPathInfoService()
    assert await read(await service.open_nar(description, 25, 50, into)) == nar_of()[25:75]
    assert (first.asked("open_nar"), second.asked("open_nar")) == (0, 1)
    assert second.into is into
    assert await service.get(KEY) == info_of()
    assert (first.asked("get"), second.asked("get")) == (0, 1)


@virtual_clock
async def test_another_member_steps_in_only_with_the_very_same_nar() -> None:
    winner = Scripted()
    other = Scripted(info_of("other"), after=1.0, seed="other")
    same = Scripted(after=2.0)
    service = race(winner, other, same)
    description = await service.describe(KEY)
    assert description is not None
    winner.says = Unavailable("gone down")
    assert await read(await service.open_nar(description)) == nar_of()
    assert await service.get(KEY) == info_of("other")
    assert same.asked("get") == 0


@virtual_clock
async def test_get_goes_on_to_a_member_with_the_winners_nar() -> None:
    class DiesInDownload(Scripted):
        async def get(self, path_hash: bytes) -> None:
            raise Unavailable("reset")

    other = Scripted(info_of("other"), after=1.0)
    same = Scripted(after=2.0)
    service = race(DiesInDownload(), other, same)
    assert await service.get(KEY) == info_of()
    assert other.asked("get") == 0


@virtual_clock
async def test_a_nar_that_was_not_described_is_not_taken_for_it_nor_for_absent() -> None:
    class Changes(Scripted):
        async def get(self, path_hash: bytes) -> PathInfo:
            return info_of("other")

    assert await race(Changes(), Scripted(after=1.0)).get(KEY) == info_of()
    with pytest.raises(Unavailable, match="a: it now has another NAR"):
        await race(Changes(), Scripted(None)).get(KEY)


@virtual_clock
async def test_without_an_answer_before_members_are_asked_in_turn() -> None:
    members = [Scripted(None), Scripted(Unavailable("down")), Scripted()]
    assert await read(await race(*members).open_nar(info_of())) == nar_of()
    assert [member.asked("open_nar") for member in members] == [1, 1, 1]


@virtual_clock
async def test_a_nar_that_nobody_has_is_absent_and_one_that_somebody_may_have_unknown() -> None:
    other = Scripted(info_of("other"))
    assert await race(Scripted(None), other).open_nar(info_of()) is None
    with pytest.raises(Unavailable, match="b: wrong hash") as caught:
        await race(other, Scripted(CorruptData("wrong hash"))).open_nar(info_of())
    assert not isinstance(caught.value, Skipped)
    with pytest.raises(Skipped):
        await race(other, Scripted(skipped("b"))).open_nar(info_of())


@virtual_clock
async def test_get_says_why_it_has_nothing() -> None:
    class Absent(Scripted):
        async def get(self, path_hash: bytes) -> None:
            return None

    assert await race(Scripted(None)).get(KEY) is None
    assert await race(Absent()).get(KEY) is None
    with pytest.raises(Unavailable, match="a: down"):
        await race(Scripted(Unavailable("down"))).get(KEY)


@virtual_clock
async def test_after_a_break_the_nar_goes_on_from_another_member() -> None:
    breaks, healthy = Scripted(breaks_at=40), Scripted(after=1.0)
    service = race(breaks, healthy)
    description = await service.describe(KEY)
    assert description is not None
    assert await read(await service.open_nar(description)) == nar_of()
    assert healthy.asked("open_nar") == 1
    # Also where it wins the path once more, for five minutes.
    assert await service.describe(KEY) is not None
    await read(await service.open_nar(description))
    assert (breaks.asked("open_nar"), healthy.asked("open_nar")) == (1, 2)
    await asyncio.sleep(300.0)
    breaks.breaks_at = None
    await read(await service.open_nar(description))
    assert breaks.asked("open_nar") == 2
    assert (breaks.open_streams, healthy.open_streams) == (0, 0)


@virtual_clock
async def test_a_part_breaks_off_and_the_client_resumes_from_another_member() -> None:
    breaks, other = Scripted(breaks_at=40), Scripted(breaks_at=30)
    service = race(breaks, other)
    came = await read_until_it_breaks(await service.open_nar(info_of(), 10))
    assert came == nar_of()[10:40]
    other.breaks_at = None
    rest = await read(await service.open_nar(info_of(), 10 + len(came)))
    assert nar_of()[:10] + came + rest == nar_of()


@virtual_clock
async def test_what_two_members_sent_together_is_hashed_before_its_last_byte_goes_out() -> None:
    """Each is right about its own NAR, and the first sent something else before it broke."""
    liar, honest, spare = Scripted(seed="wrong", breaks_at=40), Scripted(), Scripted()
    service = race(liar, honest, spare)
    stream = await service.open_nar(info_of())
    assert stream is not None
    came = b""
    with pytest.raises(CorruptData, match="a and b sent together"):
        async with stream:
            async for part in stream:
                came += part
    assert len(came) < len(nar_of())
    # Nobody knows which of the two it was, so another is asked next.
    assert await read(await service.open_nar(info_of())) == nar_of()
    assert spare.asked("open_nar") == 1


@virtual_clock
async def test_a_nar_goes_on_only_with_the_very_same_nar() -> None:
    breaks, other, same = Scripted(breaks_at=30), Scripted(info_of("other")), Scripted(after=1.0)
    assert await read(await race(breaks, other, same).open_nar(info_of())) == nar_of()


@virtual_clock
async def test_a_nar_breaks_where_all_have_broken() -> None:
    members = [Scripted(breaks_at=20), Scripted(breaks_at=40), Scripted(Unavailable("down"))]
    service = race(*members)
    assert await read_until_it_breaks(await service.open_nar(info_of())) == nar_of()[:40]
    assert [member.open_streams for member in members] == [0, 0, 0]


@virtual_clock
async def test_who_leaves_a_nar_that_went_on_closes_it_at_both() -> None:
    members = [Scripted(breaks_at=20), Scripted(after=1.0)]
    stream = await race(*members).open_nar(info_of())
    assert stream is not None
    for _ in range(3):
        await anext(stream)
    await stream.aclose()
    assert [member.open_streams for member in members] == [0, 0]


@virtual_clock
async def test_all_have_broken_and_are_asked_all_the_same() -> None:
    service = race(Scripted(breaks_at=40))
    for _ in range(2):
        assert await read_until_it_breaks(await service.open_nar(info_of())) == nar_of()[:40]


@virtual_clock
async def test_a_put_goes_to_the_first_that_takes_writes() -> None:
    first, second = Scripted(puts=[]), Scripted(puts=[])
    await race(Scripted(), first, second).put(info_of())
    assert (first.puts, second.puts) == ([info_of()], [])
    with pytest.raises(ReadOnly, match="none of a, b"):
        await race(Scripted(), Scripted()).put(info_of())


@virtual_clock
async def test_a_list_is_the_union_of_those_that_can_be_listed() -> None:
    first, second = MemoryPathInfoService(), MemoryPathInfoService()
    both = info_of()
    only = info_of(path=type(both.store_path)(bytes(20), "only"))
    await first.put(both)
    await second.put(both)
    await second.put(only)
    service = RacingPathInfoService([first, Scripted(), second], "abc")
    assert [info async for info in service.list()] == [both, only]
    with pytest.raises(Unsupported, match="none of a, b"):
        await anext(race(Scripted(), Scripted()).list())


@virtual_clock
async def test_groups_within_groups_go_on_with_all_of_their_members() -> None:
    """Also where the outer group has come to the inner one in the middle of the NAR."""
    near = race(Scripted(breaks_at=20))
    far = race(Scripted(breaks_at=40), Scripted(breaks_at=60), Scripted(after=1.0))
    service = RacingPathInfoService([near, far], ["near", "far"])
    assert await read(await service.open_nar(info_of())) == nar_of()


@virtual_clock
async def test_a_liar_in_an_inner_group_is_found_out_above() -> None:
    near = race(Scripted(breaks_at=20))
    far = race(Scripted(seed="wrong", breaks_at=60), Scripted(after=1.0))
    service = RacingPathInfoService([near, far], ["near", "far"])
    stream = await service.open_nar(info_of())
    assert stream is not None
    with pytest.raises(CorruptData, match="near and far sent together"):
        await stream.read_all()
