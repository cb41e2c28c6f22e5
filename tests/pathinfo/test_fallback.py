from __future__ import annotations

from itertools import product

import pytest

from tests.pathinfo.scripted import KEY, Scripted, info_of, nar_of, read
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import Skipped, StorageFull, Unavailable
from tvixstore.pathinfo import PathInfo, PathInfoService
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.deadline import bounded
from tvixstore.policy.timeout import Timeout


def fallback(*members: PathInfoService) -> FallbackPathInfoService:
    return FallbackPathInfoService(members, "abcdef"[: len(members)], lookup_timeout=10.0)


def guarded(inner: Scripted, *, optional: bool = False) -> PathInfoService:
    """What a substituter is lowered to."""
    breaker = Breaker(failures=1 if optional else 5)
    service = BreakerPathInfoService(
        RetryPathInfoService(TimeoutPathInfoService(inner, Timeout(5.0))), breaker
    )
    return OptionalPathInfoService(service, "spare", breaker) if optional else service


@virtual_clock
async def test_the_first_that_has_it_is_the_last_that_is_asked() -> None:
    members = [Scripted(None), Scripted(Unavailable("down")), Scripted(), Scripted()]
    assert await fallback(*members).describe(KEY) == info_of()
    assert [member.asked("describe") for member in members] == [1, 1, 1, 0]


@virtual_clock
async def test_one_that_hangs_gets_half_of_the_time_and_the_next_half_of_the_rest() -> None:
    members = [Scripted(after=None), Scripted(after=None), Scripted(after=2.4)]
    assert await fallback(*members).describe(KEY) == info_of()
    assert [member.calls[0][1] for member in members] == [0, 5.0, 7.5]


@virtual_clock
async def test_the_whole_lookup_ends_in_time_with_every_reason() -> None:
    members = [Scripted(after=None), Scripted(None), Scripted(after=None)]
    with pytest.raises(Unavailable) as caught:
        await fallback(*members).describe(KEY)
    assert now() == 10.0
    assert str(caught.value) == "a: no answer within 5 s; c: no answer within 5 s"


@virtual_clock
async def test_a_caller_in_a_hurry_is_answered_in_his_time() -> None:
    with bounded(4.0), pytest.raises(Unavailable):
        await fallback(Scripted(after=None), Scripted(after=None)).describe(KEY)
    assert now() == 4.0


@virtual_clock
async def test_a_guarded_member_fails_by_itself_before_it_would_be_cancelled() -> None:
    with pytest.raises(Unavailable, match="a: no answer within 4.75 s"):
        await fallback(guarded(Scripted(after=None)), Scripted(None)).describe(KEY)
    assert now() == 4.75


@virtual_clock
async def test_a_dead_optional_member_is_skipped_from_the_first_lookup_on() -> None:
    dead = Scripted(after=None)
    service = fallback(Scripted(None), guarded(dead, optional=True), Scripted(None))
    for _ in range(2):
        with pytest.raises(Skipped) as caught:
            await service.describe(KEY)
        assert caught.value.names == ("spare",)
        assert caught.value.answered
    assert dead.asked("describe") == 1


ANSWERS: dict[str, PathInfo | Exception | None] = {
    "present": info_of(),
    "absent": None,
    "failed": Unavailable("down"),
    "skipped": Skipped("down", ["x"], answered=False),
}


@pytest.mark.parametrize("answers", list(product(ANSWERS, repeat=3)), ids=", ".join)
def test_every_combination_of_three_members(answers: tuple[str, ...]) -> None:
    @virtual_clock
    async def run() -> None:
        service = fallback(*(Scripted(ANSWERS[answer]) for answer in answers))
        if "present" in answers:
            assert await service.describe(KEY) == info_of()
            assert await service.get(KEY) == info_of()
            assert await read(await service.open_nar(info_of())) == nar_of()
        elif set(answers) == {"absent"}:
            assert await service.describe(KEY) is None
            assert await service.get(KEY) is None
            assert await service.open_nar(info_of()) is None
        else:
            with pytest.raises(Unavailable) as caught:
                await service.describe(KEY)
            assert isinstance(caught.value, Skipped) == ("failed" not in answers)
            with pytest.raises(type(caught.value)):
                await service.get(KEY)
            with pytest.raises(type(caught.value)):
                await service.open_nar(info_of())

    run()


@virtual_clock
async def test_the_nar_comes_from_whoever_described_it() -> None:
    first, second = Scripted(None), Scripted()
    service = fallback(first, second)
    assert await service.describe(KEY) == info_of()
    first.after = None
    assert await read(await service.open_nar(info_of())) == nar_of()
    assert first.asked("open_nar") == 0


@virtual_clock
async def test_after_a_break_the_nar_goes_on_from_the_next_member() -> None:
    service = fallback(Scripted(breaks_at=40), Scripted())
    assert await read(await service.open_nar(info_of())) == nar_of()


class Collected(Scripted):
    """Finds out that the NAR is gone when it is wanted, and knows no more of the path then."""

    async def get(self, path_hash: bytes) -> PathInfo | None:
        self.says = None
        return await super().get(path_hash)


@virtual_clock
async def test_a_path_whose_nar_is_gone_is_not_absent_while_another_has_another_nar() -> None:
    other = info_of("another build")
    service = NegativePathInfoService(fallback(Collected(), Scripted(other)))
    with pytest.raises(Unavailable, match="another NAR"):
        await service.get(KEY)
    assert await service.describe(KEY) == other
    assert await service.get(KEY) == other


@virtual_clock
async def test_a_path_whose_nar_is_gone_everywhere_is_absent() -> None:
    service = NegativePathInfoService(fallback(Collected(), Collected()))
    assert await service.get(KEY) is None
    assert await service.describe(KEY) is None


@virtual_clock
async def test_a_store_that_is_full_is_not_the_members_fault() -> None:
    class Full(Scripted):
        async def get(self, path_hash: bytes) -> PathInfo | None:
            await super().get(path_hash)
            raise StorageFull("no room")

    members = [Full(), Full()]
    service = fallback(*members)
    with pytest.raises(StorageFull):
        await service.get(KEY)
    await read(await service.open_nar(info_of()))
    assert [member.asked("get") for member in members] == [1, 0]
    assert [member.asked("open_nar") for member in members] == [1, 0]
