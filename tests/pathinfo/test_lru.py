from __future__ import annotations

from contextlib import aclosing

import pytest

from tests.pathinfo.samples import add, memory_content, store_path
from tests.pathinfo.scripted import read
from tests.support.virtual_clock import virtual_clock
from tvixstore.errors import ReadOnly
from tvixstore.pathinfo import (
    CachedPathInfoService,
    LruPathInfoService,
    MemoryPathInfoService,
    ReadOnlyPathInfoService,
)


@virtual_clock
async def test_what_was_used_longest_ago_is_forgotten() -> None:
    content = memory_content()
    service = LruPathInfoService(2)
    one, two, three = [await add(content, name, name.encode()) for name in ("one", "two", "three")]
    await service.put(one.info)
    await service.put(two.info)
    assert await service.get(one.key) == one.info
    await service.put(three.info)
    assert await service.get(two.key) is None
    async with aclosing(service.list()) as infos:
        assert [info async for info in infos] == [one.info, three.info]


@virtual_clock
async def test_in_front_of_a_service_with_content_it_leaves_nars_to_that() -> None:
    content = memory_content()
    far = MemoryPathInfoService(content)
    sample = await add(content, "hello", b"hello")
    await far.put(sample.info)
    cache = CachedPathInfoService(LruPathInfoService(10), far)
    assert cache.content is content
    assert await cache.get(sample.key) == sample.info
    far.infos.clear()
    assert await cache.get(sample.key) == sample.info
    assert await cache.describe(sample.key) == sample.info
    far.infos[sample.key] = sample.info
    assert await read(await cache.open_nar(sample.info)) == sample.nar


@virtual_clock
async def test_readonly_refuses_puts_and_nothing_else() -> None:
    content = memory_content()
    inner = MemoryPathInfoService(content)
    sample = await add(content, "hello", b"hello")
    service = ReadOnlyPathInfoService(inner)
    with pytest.raises(ReadOnly):
        await service.put(sample.info)
    await inner.put(sample.info)
    assert await service.get(sample.key) == sample.info
    assert await service.get(store_path("absent").hash) is None
