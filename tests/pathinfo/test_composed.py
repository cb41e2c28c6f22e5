"""The policies together, as a short-form file is lowered to them, against members of every kind.

Whatever the members do: a lookup ends in its time, absent is said only where all said so, and a
path that a healthy member has is found.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tests.pathinfo.samples import memory_content
from tests.pathinfo.scripted import KEY, Scripted, info_of, nar_of
from tests.support.virtual_clock import now, virtual_clock
from tvixstore.errors import CorruptData, Skipped, StoreError, Unavailable
from tvixstore.pathinfo import MemoryPathInfoService, PathInfo, PathInfoService
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.hedge import Budget, Hedging
from tvixstore.policy.timeout import Timeout

LOOKUP = 10.0
ATTEMPT = 5.0


@dataclass(frozen=True)
class Upstream:
    """What one member does, always."""

    kind: str
    delay: float
    optional: bool

    def script(self) -> Scripted:
        says: dict[str, PathInfo | Exception | None] = {
            "absent": None,
            "fails": Unavailable("503", retry_after=self.delay),
            "lies": CorruptData("wrong key"),
        }
        after = None if self.kind == "hangs" else self.delay
        breaks_at = 40 if self.kind == "breaks" else None
        return Scripted(says.get(self.kind, info_of()), after, breaks_at=breaks_at)

    @property
    def has_it(self) -> bool:
        return self.kind in ("present", "breaks")


def guarded(upstream: Upstream, name: str) -> PathInfoService:
    breaker = Breaker(failures=1 if upstream.optional else 5)
    service = BreakerPathInfoService(
        RetryPathInfoService(TimeoutPathInfoService(upstream.script(), Timeout(ATTEMPT))), breaker
    )
    return OptionalPathInfoService(service, name, breaker) if upstream.optional else service


def compose(classes: list[list[Upstream]], hedge: float) -> CachedPathInfoService:
    races = []
    for position, members in enumerate(classes):
        names = [f"{position}.{number}" for number in range(len(members))]
        guarded_members = [guarded(*each) for each in zip(members, names, strict=True)]
        races.append(
            RacingPathInfoService(guarded_members, names, Hedging(hedge, Budget(most=1000.0)))
        )
    names = [f"class {position}" for position in range(len(races))]
    far = NegativePathInfoService(FallbackPathInfoService(races, names, LOOKUP))
    return CachedPathInfoService(MemoryPathInfoService(memory_content()), far)


def surely_found(classes: list[list[Upstream]], hedge: float) -> bool:
    """Whether a member has it and gets its answer out, even if all before it use up their time."""
    left = LOOKUP
    for position, members in enumerate(classes):
        share = left if position == len(classes) - 1 else left / 2
        for member in members:
            # It may be the last in its class: the order is that of what was measured.
            took = (len(members) - 1) * hedge + member.delay
            if member.has_it and took < 0.95 * share - 1e-6 and member.delay < ATTEMPT - 1e-6:
                return True
        left -= share
    return False


upstreams = st.builds(
    Upstream,
    st.sampled_from(["present", "breaks", "absent", "fails", "lies", "hangs"]),
    st.integers(0, 24).map(lambda number: number / 4),
    st.booleans(),
)
compositions = st.lists(st.lists(upstreams, min_size=1, max_size=3), min_size=1, max_size=3)
hedges = st.sampled_from([0.0, 0.25, 1.0])


@given(compositions, hedges, st.lists(st.sampled_from([0.0, 1.0, 40.0]), max_size=7))
@virtual_clock
async def test_lookups_never_lie_and_always_end_in_time(
    classes: list[list[Upstream]], hedge: float, pauses: list[float]
) -> None:
    service = compose(classes, hedge)
    members = [member for each in classes for member in each]
    said_absent = all(member.kind == "absent" for member in members)
    for pause in [0.0, *pauses]:
        await asyncio.sleep(pause)
        started = now()
        try:
            answer = await service.describe(KEY)
        except StoreError as error:
            assert isinstance(error, Unavailable)
            assert not surely_found(classes, hedge)
            if isinstance(error, Skipped):
                # Somebody who matters and could not say outweighs those who don't.
                assert not any(
                    member.kind in ("fails", "lies", "hangs") and not member.optional
                    for member in members
                )
                named = {classes[int(name[0])][int(name[2])] for name in error.names}
                assert all(member.optional for member in named)
        else:
            if answer is None:
                assert said_absent
            else:
                assert answer == info_of()
                assert any(member.has_it for member in members)
        assert now() - started <= LOOKUP + 1e-6
    await service.aclose()


@given(compositions, hedges, st.floats(0, 12), st.integers(1, 3))
@virtual_clock
async def test_a_lookup_can_be_left_at_any_time(
    classes: list[list[Upstream]], hedge: float, after: float, times: int
) -> None:
    service = compose(classes, hedge)
    lookup = asyncio.create_task(service.describe(KEY))
    await asyncio.sleep(after)
    for _ in range(times):
        lookup.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([lookup])
    if not lookup.cancelled() and lookup.exception() is None and lookup.result() is None:
        assert all(member.kind == "absent" for each in classes for member in each)
    await service.aclose()


@given(compositions, hedges)
@virtual_clock
async def test_a_client_that_resumes_gets_the_nar_from_whoever_can_give_it(
    classes: list[list[Upstream]], hedge: float
) -> None:
    service = compose(classes, hedge)
    try:
        description = await service.describe(KEY)
    except StoreError:
        return
    if description is None:
        return
    came = b""
    members = [member for each in classes for member in each]
    # Twice as often as there are members: a class is set back too when one of its members breaks.
    for _ in range(2 * len(members)):
        try:
            stream = await service.open_nar(description, len(came))
            assert stream is not None
            async with stream:
                async for part in stream:
                    came += part
        except StoreError:
            continue
        break
    # One that was given up for another after three seconds may be left alone for a while, and an
    # optional one after a single lookup that left it too little time.
    if any(
        member.kind == "present" and member.delay < 3.0 and not member.optional
        for member in members
    ):
        assert came == nar_of()
    else:
        assert nar_of().startswith(came)
    await service.aclose()
