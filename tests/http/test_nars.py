"""NARs: parts of them, copies that clients have already, and bodies that cannot be completed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.support import (
    ABSENT,
    DescribedPaths,
    FailingPaths,
    ScriptedStream,
    Store,
    client_of,
    description_of,
    front_of,
    link_of,
)
from tvixstore.castore import Digest, DirectoryNode
from tvixstore.errors import StorageFull, StoreError, Unavailable
from tvixstore.http.ranges import Part, Unsatisfiable, select
from tvixstore.pathinfo import CachedPathInfoService, MemoryPathInfoService

if TYPE_CHECKING:
    from tvixstore.pathinfo import PathInfo

NOBODYS = Digest(bytes(32))


async def test_both_forms_serve_the_same_immutable_nar() -> None:
    store = await Store.filled()
    etag = store.path.etag
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for target in (
            store.path.by_hash,
            store.path.by_node,
            store.path.by_node.replace("tvix", "snix"),
        ):
            reply = await client.get(target)
            assert reply.status == 200
            assert reply.body == store.path.nar
            assert reply.headers["content-type"] == "application/x-nix-nar"
            assert reply.headers["accept-ranges"] == "bytes"
            assert reply.headers["etag"] == etag
            assert "immutable" in reply.headers["cache-control"]


async def test_a_node_needs_no_path_info() -> None:
    store = await Store.filled()
    target = link_of(store.path.info.node, len(store.path.nar))
    async with client_of(front_of(DescribedPaths(None), store.content)) as client:
        reply = await client.get(target)
        unknown_path = await client.get(f"{target}&path={ABSENT}")
    async with client_of(front_of(FailingPaths(Unavailable("down")), store.content)) as client:
        unknown = await client.get(f"{target}&path={ABSENT}")
    assert reply.body == unknown_path.body == unknown.body == store.path.nar
    assert reply.headers["etag"] == unknown.headers["etag"] != '""'


@pytest.mark.parametrize("path_known", [True, False])
async def test_another_narsize_than_the_nodes_is_400(path_known: bool) -> None:
    store = await Store.filled()
    path_infos = store.path_infos if path_known else DescribedPaths(None)
    target = link_of(store.path.info.node, len(store.path.nar) + 8, store.path.digits)
    async with client_of(front_of(path_infos, store.content)) as client:
        reply = await client.get(target)
    assert reply.status == 400
    assert str(len(store.path.nar)) in reply.text


async def test_a_client_that_has_the_nar_is_told_so() -> None:
    store = await Store.filled()
    described = DescribedPaths(description_of(store.path))
    etag = store.path.etag
    async with client_of(front_of(described)) as client:
        for tags in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            for method in ("GET", "HEAD"):
                reply = await client.request(method, store.path.by_hash, If_None_Match=tags)
                assert reply.status == 304
                assert reply.headers["etag"] == etag
    assert described.opened == []


@pytest.mark.parametrize("form", ["by_hash", "by_node"])
async def test_a_range_is_that_part(form: str) -> None:
    store = await Store.filled()
    target: str = getattr(store.path, form)
    nar, size = store.path.nar, len(store.path.nar)
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for wanted, expected in (
            ("bytes=0-0", slice(0, 1)),
            ("bytes=100-", slice(100, size)),
            ("bytes=-100", slice(size - 100, size)),
            (f"bytes=-{size + 5}", slice(0, size)),
            (f"BYTES = {size - 1}-{size + 99} ", slice(size - 1, size)),
        ):
            reply = await client.get(target, Range=wanted)
            assert reply.status == 206
            assert reply.body == nar[expected]
            assert (
                reply.headers["content-range"]
                == f"bytes {expected.start}-{expected.stop - 1}/{size}"
            )
        for wanted in (f"bytes={size}-", f"bytes={size + 1}-{size + 2}", "bytes=-0"):
            reply = await client.get(target, Range=wanted)
            assert reply.status == 416
            assert reply.headers["content-range"] == f"bytes */{size}"
        for wanted in ("bytes=9-3", "bytes=-", "bytes=0-1,4-5", "lines=1-2", "bytes=x-", "b" * 99):
            reply = await client.get(target, Range=wanted)
            assert (reply.status, reply.body) == (200, nar)


async def test_a_range_of_another_nar_gets_everything() -> None:
    store = await Store.filled()
    etag = store.path.etag
    async with client_of(front_of(store.path_infos, store.content)) as client:
        same = await client.get(store.path.by_hash, Range="bytes=5-", If_Range=etag)
        for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
            reply = await client.get(store.path.by_hash, Range="bytes=5-", If_Range=other)
            assert reply.status == 200
    assert same.status == 206


@given(data=st.data(), size=st.integers(1, 10**6))
def test_a_selected_part_is_what_rfc_9110_says(data: st.DataObject, size: int) -> None:
    first = data.draw(st.integers(0, 2 * size))
    last = data.draw(st.none() | st.integers(0, 2 * size))
    header = f"bytes={first}-{'' if last is None else last}"
    try:
        part = select(header, None, '"tag"', size)
    except Unsatisfiable:
        assert first >= size
        return
    if last is not None and last < first:
        assert part is None
        return
    end = size if last is None else min(last + 1, size)
    assert part == Part(first, end - first)


async def test_random_parts_are_equal_to_the_same_part_of_the_whole() -> None:
    store = await Store.filled()
    size = len(store.path.nar)
    async with client_of(front_of(store.path_infos, store.content)) as client:
        for seed in range(60):
            first = seed * 7919 * 131 % size
            last = min(first + seed**4, size - 1)
            wanted = f"bytes={first}-{last}"
            for target in (store.path.by_hash, store.path.by_node):
                reply = await client.get(target, Range=wanted)
                assert reply.status == 206
                assert reply.body == store.path.nar[first : last + 1], wanted


async def test_a_part_is_opened_at_its_offset() -> None:
    store = await Store.filled()
    stream = ScriptedStream(store.path.nar[64:96])
    described = DescribedPaths(description_of(store.path), stream)
    async with client_of(front_of(described)) as client:
        reply = await client.get(store.path.by_hash, Range="bytes=64-95")
    assert reply.body == store.path.nar[64:96]
    assert described.opened == [(64, 32)]
    assert stream.closed.is_set()


class RefillingPaths(MemoryPathInfoService):
    """Knows a path whose content comes back when it is got."""

    def __init__(
        self, empty: Store, full: Store, *, described: bool = True, error: StoreError | None = None
    ) -> None:
        super().__init__(empty.content)
        self.infos = full.path_infos.infos
        self.empty, self.full = empty, full
        self.described = described
        self.error = error

    async def get(self, path_hash: bytes) -> PathInfo | None:
        if self.error is not None:
            raise self.error
        self.empty.blobs.blobs.update(self.full.blobs.blobs)
        self.empty.directories.directories.update(self.full.directories.directories)
        return await super().get(path_hash)

    async def describe(self, path_hash: bytes, nar_sha256: bytes | None = None) -> PathInfo | None:
        return self.infos.get(path_hash) if self.described else None


@pytest.mark.parametrize("described", [True, False], ids=["path info here", "path info gone too"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_gone_content_is_fetched_again_by_its_path(described: bool, method: str) -> None:
    empty, full = Store(), await Store.filled(f"{described} {method}")
    paths = RefillingPaths(empty, full, described=described)
    async with client_of(front_of(paths, empty.content)) as client:
        reply = await client.request(method, full.path.by_node)
    assert reply.status == 200
    assert int(reply.headers["content-length"]) == len(full.path.nar)
    assert reply.headers["etag"] == full.path.etag
    if method == "GET":
        assert reply.body == full.path.nar


async def test_gone_content_whose_path_has_another_node_by_now_is_404() -> None:
    empty, full = Store(), await Store.filled()
    other = DirectoryNode(NOBODYS, 1)
    async with client_of(front_of(RefillingPaths(empty, full), empty.content)) as client:
        reply = await client.get(link_of(other, len(full.path.nar), full.path.digits))
        absent = await client.get(link_of(other, len(full.path.nar), ABSENT))
    assert (reply.status, absent.status) == (404, 404)


@pytest.mark.parametrize("error", [StorageFull("no room"), Unavailable("upstream down")])
async def test_gone_content_that_cannot_come_back_now_is_503(error: StoreError) -> None:
    empty, full = Store(), await Store.filled()
    paths = RefillingPaths(empty, full, error=error)
    async with client_of(front_of(paths, empty.content)) as client:
        assert (await client.get(full.path.by_node)).status == 503


@pytest.mark.parametrize("lost", ["everything", "a blob in the middle"])
@pytest.mark.parametrize("part", [None, "bytes=100-"])
async def test_content_that_a_cache_lost_comes_from_behind_it(lost: str, part: str | None) -> None:
    near, full = Store(), await Store.filled(f"{lost} {part}")
    near.path_infos.infos.update(full.path_infos.infos)
    if lost != "everything":
        near.directories.directories.update(full.directories.directories)
        small = {digest: data for digest, data in full.blobs.blobs.items() if len(data) < 1000}
        near.blobs.blobs.update(small)
    paths = CachedPathInfoService(near.path_infos, full.path_infos)
    async with client_of(front_of(paths, near.content)) as client:
        headers = {} if part is None else {"Range": part}
        reply = await client.get(full.path.by_node, **headers)
    assert reply.body == full.path.nar[0 if part is None else 100 :]
