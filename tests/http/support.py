"""A store with a few paths, services that fail as told, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.dialling import dial
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Directory, DirectoryNode, FileNode, SymlinkNode, encode_node
from tvixstore.directory import MemoryDirectoryService
from tvixstore.http import HttpFront, HttpServer, serve
from tvixstore.metrics import Metrics
from tvixstore.nar import render
from tvixstore.nix import StorePath, nixbase32
from tvixstore.pathinfo import Description, MemoryPathInfoService, PathInfo, PathInfoService
from tvixstore.streams import ByteStream
from tvixstore.tree import Content

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tvixstore.castore import Node

ABSENT_HASH = b"\xff" * 20
ABSENT = nixbase32.encode(ABSENT_HASH)


@dataclass(frozen=True)
class StoredPath:
    """A path info and its NAR."""

    info: PathInfo
    nar: bytes

    @property
    def digits(self) -> str:
        return self.info.store_path.digits

    @property
    def by_hash(self) -> str:
        """The URL of its NAR by hash."""
        return f"/nar/{self.digits}-{nixbase32.encode(self.info.nar_sha256)}.nar"

    @property
    def by_node(self) -> str:
        """The URL of its NAR by node."""
        return link_of(self.info.node, len(self.nar), self.digits)

    @property
    def etag(self) -> str:
        return f'"{nixbase32.encode(self.info.nar_sha256)}"'


async def store_path(
    path_infos: PathInfoService, content: Content, name: str, node: Node, **fields: Any
) -> StoredPath:
    """Puts `node`, whose content is there, as a path called `name`."""
    nar = await render(content, node).read_all()
    path = StorePath(hashlib.sha256(name.encode()).digest()[:20], name)
    info = PathInfo(
        store_path=path,
        nar_sha256=hashlib.sha256(nar).digest(),
        nar_size=len(nar),
        node=node,
        **fields,
    )
    return StoredPath(await path_infos.put(info), nar)


@dataclass
class Store:
    """Memory services with one path in them: a directory with a file of 300 kB, and more."""

    blobs: MemoryBlobService = field(default_factory=MemoryBlobService)
    directories: MemoryDirectoryService = field(default_factory=MemoryDirectoryService)
    content: Content = field(init=False)
    path_infos: MemoryPathInfoService = field(init=False)
    path: StoredPath = field(init=False)

    def __post_init__(self) -> None:
        self.content = Content(self.blobs, self.directories)
        self.path_infos = MemoryPathInfoService(self.content)

    @classmethod
    async def filled(cls, note: str = "") -> Store:
        """`note` makes content that no other test has: sizes are remembered by digest."""
        store = cls()
        blobs, directories = store.blobs, store.directories
        large = bytes(range(256)) * 1200
        tool = b"#!/bin/sh\nexit 0\n"
        inner = Directory.of(
            [(b"tool", FileNode(await blobs.put(tool), len(tool), executable=True))]
        )
        await directories.put(inner)
        top = Directory.of(
            [
                (b"bin", DirectoryNode(inner.digest, inner.size)),
                (b"data", FileNode(await blobs.put(large), len(large))),
                (b"link", SymlinkNode(b"bin/tool" + note.encode())),
            ]
        )
        await directories.put(top)
        node = DirectoryNode(top.digest, top.size)
        store.path = await store_path(store.path_infos, store.content, "app-1.0", node)
        return store


class ScriptedStream(ByteStream):
    """Gives `pieces`; an exception among them is raised, an event is waited for."""

    def __init__(self, *pieces: bytes | Exception | asyncio.Event) -> None:
        self._pieces = list(pieces)
        self.waiting = asyncio.Event()
        self.closed = asyncio.Event()

    async def __anext__(self) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                return piece
            self.waiting.set()
            await piece.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed.set()


class DescribedPaths(PathInfoService):
    """A substituter that is asked for one path: knows no node, streams what it is given."""

    def __init__(self, description: Description | None, stream: ByteStream | None = None) -> None:
        self.description = description
        self.stream = stream
        self.opened: list[tuple[int, int | None]] = []

    async def get(self, path_hash: bytes) -> PathInfo | None:
        raise AssertionError("a substituter is not asked to download")

    async def put(self, info: PathInfo) -> PathInfo:
        raise AssertionError("a front door puts nothing")

    def list(self) -> AsyncGenerator[PathInfo, None]:
        raise AssertionError("a front door lists nothing")

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        known = self.description
        if known is None or known.store_path.hash != path_hash:
            return None
        return known if nar_sha256 in (None, known.nar_sha256) else None

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        self.opened.append((offset, length))
        return self.stream


def description_of(path: StoredPath) -> Description:
    """What a substituter would say of it."""
    info = path.info
    return Description(
        store_path=info.store_path, nar_sha256=info.nar_sha256, nar_size=info.nar_size
    )


class FailingPaths(DescribedPaths):
    """Every call raises `error`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(None)
        self.error = error

    async def get(self, path_hash: bytes) -> PathInfo | None:
        raise self.error

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        raise self.error


class StuckPaths(DescribedPaths):
    """Every lookup waits until it is cancelled."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return None


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    # Whether the body came to its end: Content-Length's, or the last chunk.
    whole: bool = True

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    """One connection; speaks HTTP/1.1 by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, target: str, **headers: str) -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: cache"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def read_head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        assert len(fields) == len(lines), "no header comes twice"
        return int(status_line.split(" ")[1]), {name.lower(): fields[name] for name in fields}

    async def receive(self, method: str = "GET") -> Reply:
        status, headers = await self.read_head()
        if method == "HEAD" or status == 304:
            return Reply(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return await self._receive_chunks(status, headers)
        length = int(headers["content-length"])
        try:
            return Reply(status, headers, await self.reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            return Reply(status, headers, error.partial, whole=False)

    async def _receive_chunks(self, status: int, headers: dict[str, str]) -> Reply:
        body = bytearray()
        try:
            while length := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(length)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            if isinstance(error, asyncio.IncompleteReadError):
                body += error.partial
            return Reply(status, headers, bytes(body), whole=False)
        return Reply(status, headers, bytes(body))

    async def request(self, method: str, target: str, **headers: str) -> Reply:
        self.send(method, target, **headers)
        return await self.receive(method)

    async def get(self, target: str, **headers: str) -> Reply:
        return await self.request("GET", target, **headers)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            # The server broke it off, as some tests want.
            pass


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Client]:
    reader, writer = await dial(address)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()


def front_of(
    path_infos: PathInfoService, content: Content | None = None, **settings: Any
) -> HttpFront:
    return HttpFront(path_infos, content or Store().content, Metrics(), **settings)


@asynccontextmanager
async def serving(
    front: HttpFront, address: str = "127.0.0.1:0", drain_timeout: float = 5.0
) -> AsyncIterator[HttpServer]:
    server = await serve(front, address, drain_timeout)
    try:
        yield server
    finally:
        await server.aclose()


@asynccontextmanager
async def client_of(front: HttpFront) -> AsyncIterator[Client]:
    """One connection to `front`."""
    async with serving(front) as server, connected(server.addresses[0]) as client:
        yield client


def counted(served: HttpFront, name: str, **labels: str) -> float:
    """What a metric of its requests says; 0 if it was never counted."""
    labels["front"] = "http"
    return served.metrics.registry.get_sample_value(f"tvixstore_{name}", labels) or 0.0


def link_of(node: Node, size: int, path: str | None = None, form: str = "tvix-castore") -> str:
    """The URL of a NAR by its node."""
    name = base64.urlsafe_b64encode(encode_node(node)).rstrip(b"=").decode()
    return f"/nar/{form}/{name}?narsize={size}" + ("" if path is None else f"&path={path}")
