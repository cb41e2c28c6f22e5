"""Blobs spread over several places, each whole in the one that its digest draws.

A blob's chunks stay with it: they are read together, and a store makes them by itself. So a chunk
that is asked for by its own digest is mostly not where that would draw it; whoever listed it a
moment ago is asked first. Beyond that, all members are asked in the order of the draw before a blob
is absent. That also finds what came before a member was added: in the second place.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from tvixstore.blob.members import BlobMembers
from tvixstore.blob.outline import update
from tvixstore.blob.service import BlobWriter, Chunk
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import CorruptData, StorageFull
from tvixstore.policy.in_turn import in_turn
from tvixstore.policy.race import Member
from tvixstore.policy.rendezvous import Rendezvous
from tvixstore.policy.spool import Spool
from tvixstore.policy.tasks import end
from tvixstore.policy.ttl import TtlMap
from tvixstore.pools import Pools

Result = TypeVar("Result")

# Chunks, and seconds, for which it is remembered who listed them.
_CHUNKS = 100_000
_REMEMBERED = 600.0


@dataclass(eq=False)
class ShardBlobService(BlobMembers):
    """Each blob at the member that `placement` says. What is streamed in is spooled to files in
    `directory`: only its end says whose it is."""

    placement: Rendezvous
    directory: Path = field(repr=False)
    pools: Pools = field(repr=False)
    # Where a chunk was listed.
    _listed: TtlMap[Digest, int] = field(
        default_factory=lambda: TtlMap(_CHUNKS), init=False, repr=False
    )

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        if digest == EMPTY_DIGEST:
            return []
        order = self._order(digest)
        answer = await self._first(
            [
                Member(self.names[index], partial(self.members[index].chunks, digest))
                for index in order
            ]
        )
        if answer is None:
            return None
        place, chunks = answer
        for chunk in chunks:
            self._listed.put(chunk.digest, order[place], _REMEMBERED)
        return chunks

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return _ShardWriter(self, boundaries)

    async def put(self, data: bytes) -> Digest:
        return await self.members[self.place(Digest.of(data))].put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests = [Digest.of(data) for data in blobs]
        shares: defaultdict[int, list[bytes]] = defaultdict(list)
        for digest, data in zip(digests, blobs, strict=True):
            shares[self.place(digest)].append(data)
        puts = [
            asyncio.create_task(self.members[place].put_many(share), name="put a share")
            for place, share in shares.items()
        ]
        try:
            for put in puts:
                await put
        finally:
            await end(puts)
        return digests

    def place(self, digest: Digest) -> int:
        """The member that a blob goes to."""
        return self.placement.order(digest.raw)[0]

    def _order(self, digest: Digest) -> list[int]:
        order = self.placement.order(digest.raw)
        listed = self._listed.get(digest)
        if listed is not None:
            order.sort(key=lambda index: index != listed)
        return sorted(order, key=lambda index: self._set_back.get((digest, index)) or 0)

    async def _first(
        self,
        members: Sequence[Member[Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        return await in_turn(members)


class _ShardWriter(BlobWriter):
    """Spools what is written, and writes it on once it is known to whom."""

    def __init__(self, service: ShardBlobService, boundaries: Sequence[int] | None) -> None:
        self._service = service
        self._boundaries = boundaries
        self._spool = Spool(service.directory, service.pools.files)
        self._hasher = blake3()
        self._digest: Digest | None = None

    async def write(self, data: bytes) -> None:
        if not data:
            return
        await update(self._hasher, data)
        data, spool = bytes(data), self._spool
        if spool.size + len(data) > spool.memory:
            try:
                await self._service.pools.files.run(spool.store, [data])
            except OSError as error:
                raise StorageFull(
                    f"{self._service.directory}: a blob on its way to its shard has no room here: "
                    f"{error}"
                ) from error
        spool.publish([data], spool.size + len(data))

    async def close(self) -> Digest:
        if self._digest is not None:
            return self._digest
        digest = Digest(self._hasher.digest())
        member = self._service.members[self._service.place(digest)]
        self._spool.finish()
        async with await member.open_write(self._boundaries) as writer:
            async with self._spool.open_reader() as reader:
                async for part in reader:
                    await writer.write(part)
            if (got := await writer.close()) != digest:
                raise CorruptData(f"a shard took blob {digest} for {got}")
        self._digest = digest
        await self._spool.release()
        return digest

    async def abort(self) -> None:
        await self._spool.release()
