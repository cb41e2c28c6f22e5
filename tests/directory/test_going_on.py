"""Closures from groups in which whoever gives the root does not give all that is below."""

from __future__ import annotations

from typing import Any

import pytest

from tests.directory.samples import CLOSURE, EMPTY, LEAF, MIDDLE, OTHER, ROOT
from tests.directory.scripted import Scripted, closure_of, closure_until_it_breaks
from tests.directory.test_cached import WHOLE, cached, filled, holding
from tests.support.virtual_clock import virtual_clock
from tvixstore.castore import Directory
from tvixstore.directory import FallbackDirectoryService, RacingDirectoryService
from tvixstore.directory.members import DirectoryMembers
from tvixstore.directory.mirror import MirrorDirectoryService
from tvixstore.errors import Incomplete, Unavailable
from tvixstore.policy.hedge import Hedging

KINDS = ("race", "fallback", "mirror")


def group(kind: str, *members: Scripted) -> DirectoryMembers:
    names = "abcdef"[: len(members)]
    if kind == "race":
        # So that the first one is the first to give the root.
        return RacingDirectoryService(members, names, Hedging(5.0))
    if kind == "fallback":
        return FallbackDirectoryService(members, names)
    return MirrorDirectoryService(members, names, repair=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lacking", [MIDDLE, OTHER, LEAF])
def test_what_the_one_with_the_root_lacks_comes_from_another(lacking: Directory, kind: str) -> None:
    @virtual_clock
    async def run() -> None:
        first, second = holding(*[each for each in CLOSURE if each != lacking]), holding(*CLOSURE)
        assert await closure_of(group(kind, first, second), ROOT.digest) == WHOLE
        assert first.open_closures == second.open_closures == 0

    run()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "script",
    [
        {"breaks_at": 1},
        {"breaks_at": 3},
        {"breaks_at": 2, "breaks_with": OSError("disk")},
        {"breaks_at": 0, "breaks_with": Incomplete("hole", LEAF.digest.raw)},
        {"streams": {ROOT.digest: [ROOT, MIDDLE]}},
        {"streams": {ROOT.digest: [ROOT, MIDDLE, MIDDLE, LEAF, OTHER]}},
        {"streams": {ROOT.digest: [ROOT, EMPTY]}},
        {"breaks_at": 1, "lies": {LEAF.digest: OTHER}},
    ],
    ids=str,
)
def test_a_closure_that_breaks_off_goes_on_with_another(script: dict[str, Any], kind: str) -> None:
    @virtual_clock
    async def run() -> None:
        first, second = holding(*CLOSURE, **script), holding(*CLOSURE)
        assert await closure_of(group(kind, first, second), ROOT.digest) == WHOLE
        assert first.open_closures == second.open_closures == 0

    run()


@virtual_clock
async def test_what_nobody_has_whole_comes_from_all_together() -> None:
    pieces = [holding(ROOT), holding(MIDDLE, LEAF), holding(OTHER)]
    for kind in KINDS:
        assert await closure_of(group(kind, *pieces), ROOT.digest) == WHOLE
        assert await closure_of(group(kind, *pieces[::-1]), ROOT.digest) == WHOLE


@virtual_clock
async def test_a_hole_that_nobody_fills_is_told_and_one_that_somebody_may_fill_is_unknown() -> None:
    first, second = holding(ROOT, MIDDLE, LEAF), holding(LEAF, ROOT)
    for kind in KINDS:
        came, error = await closure_until_it_breaks(group(kind, first, second), ROOT.digest)
        assert came == [ROOT, MIDDLE, LEAF]
        assert isinstance(error, Incomplete) and error.digest == OTHER.digest.raw
    second.fails = Unavailable("down")
    for kind in KINDS:
        _, error = await closure_until_it_breaks(group(kind, first, second), ROOT.digest)
        assert isinstance(error, Unavailable) and "b: down" in str(error)


@virtual_clock
async def test_who_fails_in_a_closure_is_asked_last_for_the_rest_of_it() -> None:
    first, second = holding(*CLOSURE, breaks_at=1), holding(*CLOSURE)
    assert await closure_of(group("fallback", first, second), ROOT.digest) == WHOLE
    assert first.calls == {"get_closure": 1}
    assert second.calls == {"get_many": 2}
    # For the next one it has its turn as ever.
    await closure_of(group("fallback", first, second), ROOT.digest)
    assert first.calls == {"get_closure": 2}


@virtual_clock
async def test_one_that_is_lost_does_not_make_the_others_unknown() -> None:
    spoilt, other = holding(OTHER, lies={LEAF.digest: OTHER}), holding(LEAF)
    for kind in KINDS:
        both = group(kind, spoilt, other)
        assert await both.get_many([OTHER.digest, LEAF.digest]) == [OTHER, LEAF]
        with pytest.raises(Unavailable, match="a: what came"):
            await group(kind, spoilt, holding()).get_many([OTHER.digest, LEAF.digest])


@virtual_clock
async def test_a_cache_gives_what_near_and_far_have_only_together() -> None:
    hole = {"breaks_at": 0, "breaks_with": Incomplete("hole", MIDDLE.digest.raw)}
    async with cached(holding(MIDDLE, LEAF), holding(ROOT, OTHER, **hole)) as cache:
        assert await closure_of(cache, ROOT.digest) == WHOLE
        await filled(cache)


@virtual_clock
async def test_what_a_broken_fill_was_to_bring_is_asked_of_near_too() -> None:
    # Near has all but the root, which is fetched with what is below it, and breaks off.
    async with cached(holding(MIDDLE, LEAF, OTHER), holding(ROOT)) as cache:
        assert await closure_of(cache, ROOT.digest) == WHOLE
        await filled(cache)
