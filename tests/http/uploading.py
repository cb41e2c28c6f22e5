"""A front door that takes uploads into memory services, and how a client puts things."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from tests.http.support import Client, Reply, Store, connected, front_of, serving
from tests.support.roots import CountingRoots
from tvixstore.access import Access
from tvixstore.extras import CachedExtras, LocalExtras, SubstitutedExtras
from tvixstore.http import HttpFront, Inbox
from tvixstore.kv import MemoryKeyValue
from tvixstore.nix import KeyRing, NarInfo, NixHash, nixbase32
from tvixstore.pathinfo import PathInfoService
from tvixstore.pathinfo.receiving import Receiver
from tvixstore.pathinfo.uploads import Uploads
from tvixstore.pools import Pools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.support.caches import MadePath
    from tvixstore.extras import ExtrasSource


@dataclass
class Clock:
    """The wall clock of a table."""

    seconds: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Taking:
    """A store and its front door, with one client at it."""

    store: Store
    front: HttpFront
    client: Client
    address: str
    uploads: Uploads
    clock: Clock
    kept: MemoryKeyValue
    counting: CountingRoots | None

    async def put(self, target: str, body: bytes, **headers: str) -> Reply:
        """Puts without asking first; a header's value of `-` leaves it out."""
        fields = {"Content_Length": str(len(body)), **headers}
        self.client.send("PUT", target, **{k: v for k, v in fields.items() if v != "-"})
        self.client.writer.write(body)
        return await self.client.receive()

    async def fetch(self, target: str) -> bytes:
        """The body of an answer that may be chunked, on a connection of its own."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            async with session.get(
                f"http://{self.address}{target}", headers={"Accept-Encoding": "identity"}
            ) as response:
                assert response.status == 200, await response.text()
                return await response.read()

    async def push(self, path: MadePath) -> Reply:
        """NAR and narinfo; the answer to the latter."""
        reply = await self.put(path.nar_target, path.nar)
        assert reply.status == 201, reply.text
        return await self.put(path.narinfo_target, path.text)


@asynccontextmanager
async def taking(
    folder: Path,
    *,
    path_infos: PathInfoService | None = None,
    classes: Sequence[Sequence[ExtrasSource]] = (),
    required: KeyRing | None = None,
    kept: MemoryKeyValue | None = None,
    counted_rows: bool = False,
) -> AsyncIterator[Taking]:
    store, clock = await Store.filled(), Clock()
    kept = MemoryKeyValue() if kept is None else kept
    table = MemoryKeyValue()
    counting = CountingRoots(table) if counted_rows else None
    uploads = Uploads(table, counting, clock)
    extras = CachedExtras(LocalExtras(kept, store.content), SubstitutedExtras(classes))
    pools = Pools(files=1, cpu=1, dns=1)
    front = front_of(
        path_infos or store.path_infos,
        store.content,
        access=Access.of("read", "write"),
        inbox=Inbox(Receiver(store.content, pools, folder), uploads, required),
        extras=extras,
    )
    try:
        async with serving(front) as server, connected(server.addresses[0]) as client:
            yield Taking(store, front, client, server.addresses[0], uploads, clock, kept, counting)
    finally:
        await extras.aclose()
        await uploads.aclose()
        pools.close()


def file_name(data: bytes, suffix: str = "") -> str:
    """What Nix calls a file with a NAR in it."""
    return f"{nixbase32.encode(hashlib.sha256(data).digest())}.nar{suffix}"


def narinfo_for(path: MadePath, url: str, compression: str, file: bytes | None = None) -> bytes:
    """The narinfo of `path` for a file, as Nix would write it."""
    narinfo = path.narinfo
    fields = {name: getattr(narinfo, name) for name in NarInfo.__slots__}
    fields |= {"url": url, "compression": compression}
    if file is not None:
        file_hash = NixHash("sha256", hashlib.sha256(file).digest())
        fields |= {"file_hash": file_hash, "file_size": len(file)}
    return str(NarInfo(**fields)).encode()
