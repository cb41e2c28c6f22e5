"""What a narinfo that is put refers to, while it is put: all of it stays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.evict.stores import LocalStore, open_store
from tests.http.support import client_of, front_of
from tests.http.uploading import Clock, narinfo_for
from tests.nar.trees import File
from tests.support.caches import make_path
from tvixstore.access import Access
from tvixstore.http import Inbox
from tvixstore.pathinfo import PathInfo
from tvixstore.pathinfo.receiving import Receiver
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.pathinfo.wrapper import PathInfoWrapper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.http.support import Client, Reply
    from tests.nar.trees import Tree
    from tests.support.caches import MadePath

TREE: Tree = {b"data": File(bytes(range(256)) * 2000)}


@dataclass(eq=False)
class _Late(PathInfoWrapper):
    """Before a path info gets to `inner`, the collector gets round to `meanwhile`."""

    meanwhile: list[Callable[[], Awaitable[object]]] = field(default_factory=list)

    async def put(self, info: PathInfo) -> PathInfo:
        for happens in self.meanwhile:
            await happens()
        return await self.inner.put(info)


async def _put(client: Client, target: str, body: bytes) -> Reply:
    client.send("PUT", target, Content_Length=str(len(body)))
    client.writer.write(body)
    return await client.receive()


async def _is_whole(store: LocalStore, path: MadePath) -> bool:
    info = await store.path_infos.get(path.narinfo.store_path.hash)
    assert info is not None
    stream = await store.path_infos.open_nar(info)
    assert stream is not None
    return await stream.read_all() == path.nar


async def test_an_upload_that_expires_while_its_narinfo_is_put_leaves_its_content(
    tmp_path: Path,
) -> None:
    path, clock = make_path("late", None, TREE), Clock()
    async with open_store(tmp_path / "state") as store:
        uploads = Uploads(store.engine.table("uploads"), store.references, clock)
        late = _Late(store.path_infos)
        inbox = Inbox(Receiver(store.content, store.pools, tmp_path), uploads)
        front = front_of(late, store.content, access=Access.of("read", "write"), inbox=inbox)

        async def a_day_passes() -> None:
            clock.seconds += 86_401
            await uploads.sweep()
            await store.time_passes()

        late.meanwhile = [a_day_passes, store.collector.collect]
        async with client_of(front) as client:
            assert (await _put(client, path.nar_target, path.nar)).status == 201
            assert (await _put(client, path.narinfo_target, path.text)).status == 201
        assert await _is_whole(store, path)
        await uploads.aclose()
        assert await store.problems() == []


async def test_a_path_that_is_evicted_while_another_one_takes_its_nar_leaves_it(
    tmp_path: Path,
) -> None:
    first, second, clock = make_path("first", None, TREE), make_path("second", None, TREE), Clock()
    async with open_store(tmp_path / "state") as store:
        uploads = Uploads(store.engine.table("uploads"), store.references, clock)
        late = _Late(store.path_infos)
        inbox = Inbox(Receiver(store.content, store.pools, tmp_path), uploads)
        front = front_of(late, store.content, access=Access.of("read", "write"), inbox=inbox)

        async def the_first_is_evicted() -> None:
            await store.time_passes()
            await store.freeing.evict([first.narinfo.store_path.hash])
            await store.collector.collect()

        async with client_of(front) as client:
            assert (await _put(client, first.nar_target, first.nar)).status == 201
            assert (await _put(client, first.narinfo_target, first.text)).status == 201
            clock.seconds += 86_401
            await uploads.sweep()
            late.meanwhile = [the_first_is_evicted]
            text = narinfo_for(second, first.narinfo.url, "none", first.nar)
            assert (await _put(client, second.narinfo_target, text)).status == 201
        assert await _is_whole(store, second)
        await uploads.aclose()
        assert await store.problems() == []
