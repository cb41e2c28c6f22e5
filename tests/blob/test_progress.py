"""What those who wait for a blob of a cache are told of its fill, on a virtual clock."""

from __future__ import annotations

import asyncio

from tests.blob.conformance import noise
from tests.blob.scripted import Scripted, read
from tests.blob.test_cached import KIB, cached
from tests.support.virtual_clock import virtual_clock
from tvixstore.activity import Activity, Progress, watching
from tvixstore.castore import Digest


def phases(told: list[Progress]) -> list[str]:
    found = [each.phase for each in told]
    return [one for one, before in zip(found, [None, *found], strict=False) if one != before]


@virtual_clock
async def test_a_reader_is_told_of_each_phase_and_the_next_one_that_he_joined() -> None:
    near, far = Scripted(), Scripted()
    data = noise(700 * KIB)
    digest = far.hold(data)
    one, other = list[Progress](), list[Progress]()
    async with cached(near, far) as cache:

        async def ask(told: list[Progress]) -> None:
            with watching(told.append):
                assert await read(await cache.open_read(digest)) == data

        await asyncio.gather(ask(one), ask(other))
        await near.kept.wait()
    assert phases(one)[:3] == ["waiting", "asking", "downloading"]
    assert phases(one)[-1] in ("done", "left", "ingesting")
    assert (one[0].kind, one[0].what, one[0].joined) == ("blob", str(digest), False)
    assert all(each.joined for each in other)
    assert max(each.bytes for each in one) > 0


@virtual_clock
async def test_a_fill_is_shown_while_it_runs_and_counted_then() -> None:
    near, far = Scripted(), Scripted()
    data = noise(300 * KIB)
    digest = far.hold(data)
    async with cached(near, far) as cache:
        activity = Activity()
        cache._fills._filling.activity = activity
        stream = await cache.open_read(digest, size=len(data))
        assert stream is not None
        await anext(stream)
        [shown] = activity.snapshot()["fills"]
        assert (shown["kind"], shown["total"], shown["readers"]) == ("blob", len(data), 1)
        await stream.aclose()
        await near.kept.wait()
        while len(activity):  # noqa: ASYNC110
            await asyncio.sleep(1)
        assert activity.snapshot()["totals"]["bytes"] == len(data)


@virtual_clock
async def test_what_far_does_not_have_is_told_as_absent() -> None:
    told = list[Progress]()
    async with cached(Scripted(), Scripted()) as cache:
        with watching(told.append):
            assert await cache.open_read(Digest(bytes(32))) is None
            await asyncio.sleep(0)
    assert phases(told)[-1] in ("absent", "left")
