"""`tvix-store daemon` on a long form, and an independent gRPC client for it.

    async with office(folder) as far, laptop(folder, far) as near, client_of(near) as client:
        assert await put_blob(client, b"data") == Digest.of(b"data")

The office listens for gRPC on a unix socket, which stays the same in all of its lives.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.rpc.google import GoogleClient, google_client, message
from tests.support.daemon import Daemon
from tvixstore.castore import Digest, Directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from tests.rpc.google import Answer
    from tests.support.daemon import Section, Value

Graph = dict[str, "Mapping[str, Value]"]

_SERVICES = ("blobservices", "directoryservices", "pathinfoservices")
BLOBS = "tvix.castore.v1.BlobService"
DIRECTORIES = "tvix.castore.v1.DirectoryService"
PATH_INFOS = "tvix.store.v1.PathInfoService"
# What goes into one message of a blob.
PIECE = 256 << 10


class ComposedDaemon(Daemon):
    """A daemon on `services`, tables by kind, which serves both fronts."""

    def __init__(
        self, folder: Path, services: Mapping[str, Graph], daemon: Section | None = None
    ) -> None:
        super().__init__(folder, daemon={"grpc": "127.0.0.1:0", **(daemon or {})})
        settings = self.compose.read_text().partition("[store]")[0]
        self.compose.write_text(settings + graph_text(services))

    @property
    def grpc(self) -> str:
        return grpc_target(self)


def graph_text(services: Mapping[str, Graph]) -> str:
    """The sections of a long form. Each of our values is written in JSON as it is in TOML."""
    lines = []
    for kind, nodes in services.items():
        for name, keys in nodes.items():
            lines.append(f"[{kind}.{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def grpc_target(daemon: Daemon) -> str:
    """Where its present life listens for gRPC, as grpcio wants it."""
    url = [event["grpc"] for event in daemon.events("listening") if "grpc" in event][-1]
    return str(url).removeprefix("grpc+").removeprefix("http://").replace("unix://", "unix:")


def local_store() -> dict[str, Graph]:
    """One store on disk, and nothing behind it."""
    return {kind: {"root": {"type": "local", "path": "./state"}} for kind in _SERVICES}


def tier_over(url: str, **keys: Value) -> dict[str, Graph]:
    """A store on disk, filled from the daemon at `url`."""
    return {
        kind: {
            "root": {"type": "cache", "near": "disk", "far": "office"},
            "disk": {"type": "local", "path": "./state"},
            "office": {"type": "grpc", "url": url, **keys},
        }
        for kind in _SERVICES
    }


def office(folder: Path, members: Sequence[Section] = (), **daemon: Value) -> Daemon:
    """What everybody asks: a store over the substituters that are its `members`."""
    return Daemon(folder / "office", members, daemon={"grpc": "unix:grpc.sock", **daemon})


def laptop(folder: Path, far: Daemon, **keys: Value) -> ComposedDaemon:
    """A store over the one `far`; `keys` are of the node that asks it."""
    url = f"grpc+unix://{far.folder / 'grpc.sock'}"
    return ComposedDaemon(folder / "laptop", tier_over(url, **{"timeout": "5s", **keys}))


@asynccontextmanager
async def client_of(daemon: Daemon) -> AsyncIterator[GoogleClient]:
    async with google_client(grpc_target(daemon)) as client:
        yield client


def cut(data: bytes, size: int = PIECE) -> Iterable[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


async def put_blob(client: GoogleClient, data: bytes) -> Digest:
    parts = (message("tvix.castore.v1.BlobChunk", data=part) for part in cut(data))
    return Digest((await client.call(f"{BLOBS}/Put", *parts)).reply.digest)


def reading(digest: Digest) -> Any:
    return message("tvix.castore.v1.ReadBlobRequest", digest=digest.raw)


async def read_blob(client: GoogleClient, digest: Digest) -> Answer:
    return await client.call(f"{BLOBS}/Read", reading(digest))


def bytes_of(answer: Answer) -> bytes:
    return b"".join(reply.data for reply in answer.replies)


async def put_directories(client: GoogleClient, *directories: Directory) -> Digest:
    """Puts a closure, children first."""
    wires = [directory.wire for directory in directories]
    return Digest((await client.call(f"{DIRECTORIES}/Put", *wires)).reply.root_digest)


async def closure_of(client: GoogleClient, root: Digest) -> Answer:
    wanted = message("tvix.castore.v1.GetDirectoryRequest", digest=root.raw, recursive=True)
    return await client.call(f"{DIRECTORIES}/Get", wanted)


async def stat_blob(client: GoogleClient, digest: Digest) -> Answer:
    wanted = message("tvix.castore.v1.StatBlobRequest", digest=digest.raw)
    return await client.call(f"{BLOBS}/Stat", wanted)


@asynccontextmanager
async def stopped(daemon: Daemon) -> AsyncIterator[None]:
    """Has it answer nothing and close nothing, as a machine that hangs."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def open_files(daemon: Daemon) -> int:
    """How many files, sockets and pipes it has open."""
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def memory(daemon: Daemon) -> int:
    """Bytes that are its own: what files it has mapped does not count."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024
