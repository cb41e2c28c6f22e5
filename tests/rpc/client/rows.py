"""Our client over our server, as rows of the conformance suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from tests.blob.stores import local_store
from tests.pathinfo.samples import KEYS, memory_content
from tests.rpc.client.support import fills_in, front, in_memory, over_socket
from tvixstore.blob import BlobService
from tvixstore.directory import DirectoryService, MemoryDirectoryService
from tvixstore.pathinfo import MemoryPathInfoService, PathInfoService
from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, GrpcPathInfoService, Peer
from tvixstore.rpc.server import GrpcFront
from tvixstore.tree import Content

Reach = Callable[[GrpcFront], AbstractAsyncContextManager[Peer]]

REACHES: dict[str, Reach] = {
    "grpc in memory": in_memory,
    "grpc over a socket": over_socket,
    "grpc to tvix": partial(in_memory, only="tvix"),
    "grpc to snix": partial(in_memory, only="snix"),
}


@asynccontextmanager
async def _blobs(reach: Reach, path: Path) -> AsyncIterator[BlobService]:
    async with (
        local_store(path, chunk_size=64 << 10) as store,
        front(store.blobs) as door,
        reach(door) as peer,
    ):
        yield GrpcBlobService(peer)


@asynccontextmanager
async def directories(
    reach: Reach, _: Path
) -> AsyncIterator[tuple[DirectoryService, DirectoryService]]:
    """The client's service, and the server's."""
    inner = MemoryDirectoryService()
    async with front(directories=inner) as door, reach(door) as peer:
        yield GrpcDirectoryService(peer), inner


@asynccontextmanager
async def path_infos(
    reach: Reach, path: Path
) -> AsyncIterator[tuple[PathInfoService, PathInfoService, Content]]:
    """The client's service, and the server's with its content."""
    content = memory_content()
    inner = MemoryPathInfoService(content, KEYS)
    async with (
        front(content.blobs, content.directories, inner) as door,
        reach(door) as peer,
        fills_in(path) as fills,
    ):
        own = Content(GrpcBlobService(peer), GrpcDirectoryService(peer))
        yield GrpcPathInfoService(peer, own, fills), inner, content


BLOB_ROWS = {name: partial(_blobs, reach) for name, reach in REACHES.items()}
