"""What those who wait for a closure of a cache are told of its fill, on a virtual clock."""

from __future__ import annotations

import asyncio

from tests.directory.scripted import Scripted
from tests.directory.test_cached import cached, filled, holding, long_closure
from tests.support.virtual_clock import virtual_clock
from tvixstore.activity import Progress, watching


@virtual_clock
async def test_each_reader_is_told_of_the_one_fill_and_who_joined_it() -> None:
    closure = long_closure(20)
    near, far = Scripted(), holding(*closure)
    root = closure[0].digest
    one, other = list[Progress](), list[Progress]()
    async with cached(near, far) as cache:

        async def ask(told: list[Progress]) -> None:
            with watching(told.append):
                assert len([each async for each in cache.get_closure(root)]) == len(closure)

        await asyncio.gather(ask(one), ask(other))
        await filled(cache)
        assert len(cache.activity) == 0
    phases = list(dict.fromkeys(each.phase for each in one))
    assert phases[:3] == ["waiting", "asking", "downloading"]
    assert {(each.kind, each.what) for each in one + other} == {("closure", str(root))}
    assert [each.joined for each in (one[0], other[0])] == [False, True]
    assert one[-1].over and other[-1].over
    assert one[-1].bytes == sum(len(each.wire) for each in closure)
