"""Imports into daemons of others, into those that lie, and into one that evicts meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status

from tests.filesystem.places import LARGE, Places
from tests.nar.trees import File, Tree, nar_of
from tests.rpc.client.scripted import Script, fails, says, scripted, stalls
from tests.rpc.client.support import fills_in, front, in_memory
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Digest
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import CorruptData, InvalidData, ReadOnly, StoreError, Unavailable
from tvixstore.filesystem import Importer
from tvixstore.nar import render
from tvixstore.pathinfo import MemoryPathInfoService
from tvixstore.pools import Pools
from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, GrpcPathInfoService
from tvixstore.rpc.methods import LACKING_BLOBS, PUT_BLOBS
from tvixstore.tree import Content

TREE: dict[bytes, Tree] = {
    **{b"%d" % number: File(b"%d" % number) for number in range(50)},
    b"below": {b"one": File(b"one"), b"large": File(LARGE)},
}


@dataclass
class Far:
    """A daemon in memory, and what imports into it."""

    blobs: MemoryBlobService
    pools: Pools
    folder: Path
    directories: MemoryDirectoryService = field(default_factory=MemoryDirectoryService)
    path_infos: MemoryPathInfoService = field(init=False)

    def __post_init__(self) -> None:
        self.content = Content(self.blobs, self.directories)
        self.path_infos = MemoryPathInfoService(self.content)

    @asynccontextmanager
    async def importer(self, only: str | None = None) -> AsyncIterator[Importer]:
        async with (
            front(self.blobs, self.directories, self.path_infos) as door,
            in_memory(door, only) as peer,
            fills_in(self.folder) as fills,
        ):
            content = Content(GrpcBlobService(peer), GrpcDirectoryService(peer))
            path_infos = GrpcPathInfoService(peer, content, fills)
            yield Importer(content, path_infos, self.pools)


@pytest.mark.parametrize("only", ["tvix", "snix"])
async def test_a_daemon_that_takes_blobs_one_by_one_gets_them_so(
    pools: Pools, places: Places, tmp_path: Path, only: str
) -> None:
    far = Far(MemoryBlobService(), pools, tmp_path / "spool")
    async with far.importer(only) as importer:
        path = places.make(TREE)
        info = await importer.add(path)
        assert await render(far.content, info.node).read_all() == nar_of(TREE)
        assert await far.path_infos.get(info.store_path.hash) == info
        assert await importer.add(path) == info


class Evicting(MemoryBlobService):
    """Loses what it has just said that it has, so many times."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0
        self.lost: set[Digest] = set()

    async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
        lacking = await super().lacking(digests)
        if self.times and (there := set(digests) - lacking):
            self.times -= 1
            self.lost = there
            for digest in there:
                del self.blobs[digest]
        return lacking


async def test_what_is_evicted_after_it_was_found_makes_no_path_with_holes(
    pools: Pools, places: Places, tmp_path: Path
) -> None:
    blobs = Evicting()
    far = Far(blobs, pools, tmp_path / "spool")
    path = places.make(TREE)
    async with far.importer() as importer:
        info = await importer.add(path)
        for known in (True, False):
            far.path_infos.infos.clear()
            blobs.times = 1
            # Whether what its NAR is has been found out before, or is to be found out now.
            name = "tree" if known else "other"
            if not known:
                path = places.make({**TREE, b"new": File(b"new")})
            with pytest.raises(Unavailable, match="its content is not here, put it first, or aga"):
                await importer.add(path, name=name)
            assert blobs.lost and not blobs.times
            assert not far.path_infos.infos
            # Another time it is found lacking, and sent.
            again = await importer.add(path, name=name)
            nar = await render(far.content, again.node).read_all()
            assert len(nar) == again.nar_size
        assert info.nar_size == len(nar_of(TREE))


async def test_a_daemon_that_says_that_it_has_everything_gets_no_path(
    pools: Pools, places: Places, tmp_path: Path
) -> None:
    class Boasting(MemoryBlobService):
        async def lacking(self, digests: Sequence[Digest]) -> set[Digest]:
            return set()

    far = Far(Boasting(), pools, tmp_path / "spool")
    async with far.importer() as importer:
        with pytest.raises(Unavailable, match="blob b3:[0-9a-f]* is missing"):
            await importer.add(places.make(TREE))
    assert not far.path_infos.infos


ASKED = [Digest.of(b"%d" % number) for number in range(3)]
STRANGE = [Digest.of(b"never asked for")]


async def test_digests_that_nobody_asked_for_are_not_lacking() -> None:
    script: Script = {LACKING_BLOBS: says([*STRANGE, ASKED[1], ASKED[1]])}
    async with scripted(script) as (peer, _):
        assert await GrpcBlobService(peer).lacking(ASKED) == {ASKED[1]}


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([], id="none"),
        pytest.param(ASKED[:2], id="one too few"),
        pytest.param([*ASKED, *STRANGE], id="one too many"),
        pytest.param([ASKED[1], ASKED[0], ASKED[2]], id="in another order"),
        pytest.param([ASKED[0], ASKED[1], STRANGE[0]], id="another one"),
        pytest.param([ASKED[0], ASKED[0], ASKED[2]], id="one twice"),
    ],
)
async def test_blobs_that_were_stored_as_others_are_corrupt(said: list[Digest]) -> None:
    async def puts(stream: Any) -> None:
        while await stream.recv_message() is not None:
            pass
        await stream.send_message(said)

    async with scripted({PUT_BLOBS: puts}) as (peer, _):
        with pytest.raises(CorruptData, match="stored other blobs than were sent"):
            await GrpcBlobService(peer).put_many([b"0", b"1", b"2"])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.PERMISSION_DENIED, ReadOnly),
        (Status.INVALID_ARGUMENT, InvalidData),
        (Status.RESOURCE_EXHAUSTED, Unavailable),
        (Status.UNAUTHENTICATED, Unavailable),
        (Status.DATA_LOSS, Unavailable),
        (Status.INTERNAL, Unavailable),
    ],
)
async def test_what_it_is_refused_for_is_said_with_its_name(
    status: Status, kind: type[StoreError]
) -> None:
    async with scripted({PUT_BLOBS: fails(status)}) as (peer, _):
        with pytest.raises(kind, match=f"{status.name}: as told") as caught:
            await GrpcBlobService(peer).put_many([b"0"])
        assert type(caught.value) is kind


async def test_a_daemon_that_stalls_when_it_is_asked_is_given_up() -> None:
    async with scripted({LACKING_BLOBS: stalls()}, timeout=0.05) as (peer, _):
        with pytest.raises(Unavailable, match="no answer within 0.05 s"):
            await GrpcBlobService(peer).lacking(ASKED)


async def test_who_gives_up_a_put_leaves_no_call_behind() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def stuck(stream: Any) -> None:
        await stream.recv_message()
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with scripted({PUT_BLOBS: stuck}) as (peer, _):
        # More than the windows let through.
        task = asyncio.create_task(GrpcBlobService(peer).put_many([os.urandom(900_000)] * 12))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await left.wait()
