from __future__ import annotations

import pytest

from tests.directory.samples import CLOSURE, LEAF, MIDDLE, OTHER, ROOT
from tests.directory.scripted import Scripted, closure_of, closure_until_it_breaks
from tests.directory.test_cached import WHOLE, holding, lies
from tests.support.virtual_clock import virtual_clock
from tvixstore.directory import VerifyDirectoryService
from tvixstore.errors import CorruptData, Incomplete


@virtual_clock
async def test_another_directory_than_the_one_asked_for_is_corrupt() -> None:
    service = VerifyDirectoryService(Scripted(lies={LEAF.digest: OTHER}))
    for call in (service.get(LEAF.digest), service.get_many([LEAF.digest])):
        with pytest.raises(CorruptData):
            await call
    assert await service.get(OTHER.digest) is None


@virtual_clock
async def test_what_is_right_passes() -> None:
    service = VerifyDirectoryService(holding(*CLOSURE))
    assert await service.get_many([LEAF.digest, OTHER.digest]) == [LEAF, OTHER]
    assert await closure_of(service, ROOT.digest) == WHOLE


@pytest.mark.parametrize("lie", lies())
def test_a_closure_that_does_not_hang_together_is_corrupt(lie: str) -> None:
    @virtual_clock
    async def check() -> None:
        service = VerifyDirectoryService(Scripted(streams={ROOT.digest: lies()[lie]}))
        came, error = await closure_until_it_breaks(service, ROOT.digest)
        assert isinstance(error, CorruptData)
        assert came == WHOLE[: len(came)]

    check()


@virtual_clock
async def test_a_closure_that_ends_too_early_is_incomplete() -> None:
    service = VerifyDirectoryService(Scripted(streams={ROOT.digest: [ROOT, MIDDLE, LEAF]}))
    came, error = await closure_until_it_breaks(service, ROOT.digest)
    assert came == [ROOT, MIDDLE, LEAF]
    assert isinstance(error, Incomplete) and error.digest == OTHER.digest.raw
