"""A NAR that is uploaded, ingested as it arrives.

Nothing of it is in memory or in a file as a whole: one hop to the CPU pool undoes a slice of it and
hashes the file and the NAR, while what came out before goes into blobs. The sender is held back by
not being read from. What breaks off leaves blobs that nothing names, like any fill.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tvixstore.activity import Activity, Work
from tvixstore.castore import Node, SizeRule
from tvixstore.compression import SNIFFED, Decoder, decoder, sniff
from tvixstore.errors import CorruptData, InvalidData, Unsupported
from tvixstore.nar import ingest
from tvixstore.pathinfo.upload_rows import Upload
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools
from tvixstore.tree import Content

# How much one hop to the CPU pool puts out, at least, before it is ingested; and slices that may
# wait for that.
_SLICE = 1 << 20
_AHEAD = 2
# NARs that are received at a time. Each takes some 10 MiB, and up to 128 more to undo xz; the
# others wait in their sockets.
MOST_AT_ONCE = 32

_Slices: TypeAlias = "asyncio.Queue[list[bytes] | None]"


@dataclass(eq=False)
class Receiver:
    """Where uploaded NARs go: into `content`, by way of the folder `spool` if they are huge."""

    content: Content
    pools: Pools
    spool: Path
    sizes: SizeRule = SizeRule.DOCUMENTED
    # Where those who look see what is under way.
    activity: Activity = field(default_factory=Activity, repr=False)
    _turns: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE), init=False, repr=False
    )

    async def receive(
        self,
        body: AsyncIterable[bytes],
        name: str,
        encodings: Sequence[str] = (),
        length: int | None = None,
    ) -> Upload:
        """Stores the tree in the file called `name` that `body` gives, `encodings` undone first.

        `length` is how long the body is said to be. Raises `InvalidData`, with the reason, if it is
        no NAR in a compression that is known here. The caller closes `body`.
        """
        unpacking = Unpacking(name, encodings)
        unpacking.announced = None if encodings else length
        work = self.activity.begin(Work("upload", name, "client", unpacking))
        try:
            async with self._turns:
                work.enter("receiving")
                upload = unpacking.upload(await self._ingest(unpacking, body, name))
            work.enter("done")
            return upload
        finally:
            # Unless it is over by now.
            work.enter("failed")

    async def _ingest(self, unpacking: Unpacking, body: AsyncIterable[bytes], name: str) -> Node:
        slices: _Slices = asyncio.Queue(_AHEAD)
        pump = asyncio.create_task(self._pump(unpacking, body, slices), name=f"receive {name}")
        try:
            async with aclosing(_pieces(slices, pump)) as pieces:
                return await ingest(
                    self.content, pieces, pools=self.pools, spool=self.spool, sizes=self.sizes
                )
        finally:
            await end([pump])

    async def _pump(
        self, unpacking: Unpacking, body: AsyncIterable[bytes], slices: _Slices
    ) -> None:
        try:
            async for data in body:
                await self._unpack(unpacking.feed(data), slices)
            await self._unpack(unpacking.finish(), slices)
        finally:
            await slices.put(None)

    async def _unpack(self, unpacked: Iterator[bytes], slices: _Slices) -> None:
        more = True
        while more:
            pieces, more = await self.pools.cpu.run(_slice, unpacked)
            if pieces:
                await slices.put(pieces)


async def _pieces(slices: _Slices, pump: asyncio.Task[None]) -> AsyncGenerator[bytes, None]:
    while (pieces := await slices.get()) is not None:
        for piece in pieces:
            yield piece
    # Raises what made it end early.
    await pump


def _slice(unpacked: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """In a thread: the next pieces, and whether there may be more."""
    pieces: list[bytes] = []
    amount = 0
    for piece in unpacked:
        pieces.append(piece)
        amount += len(piece)
        if amount >= _SLICE:
            return pieces, True
    return pieces, False


class Unpacking:
    """One file becoming a NAR, and what both of them hash to. Takes CPU time."""

    def __init__(self, name: str, encodings: Sequence[str]) -> None:
        self._name = name
        # How long the file is said to be.
        self.announced: int | None = None
        try:
            self._transfer = decoder("none", encodings)
        except Unsupported as error:
            raise InvalidData(f"Content-Encoding: {error}") from error
        self._head = b""
        self._compression = ""
        self._nar: Decoder | None = None
        self._file_hash, self._file_size = hashlib.sha256(), 0
        self._nar_hash, self._nar_size = hashlib.sha256(), 0

    def measured(self) -> tuple[int, int | None, int]:
        """See `activity.Measured`."""
        return self._file_size, self.announced, 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces of the NAR that `data` makes whole. Exhaust it before feeding more."""
        try:
            for part in self._transfer.feed(data):
                self._file_hash.update(part)
                self._file_size += len(part)
                yield from self._decode(part)
        except CorruptData as error:
            raise InvalidData(f"{self._name} is damaged: {error}") from error

    def finish(self) -> Iterator[bytes]:
        """What is left; raises `InvalidData` if the file ended early."""
        try:
            self._transfer.finish()
            if self._nar is None:
                yield from self._begin()
            assert self._nar is not None
            self._nar.finish()
        except CorruptData as error:
            raise InvalidData(f"{self._name} is damaged: {error}") from error

    def upload(self, node: Node) -> Upload:
        """What it was, now that `node` is what it was ingested as."""
        file_sha256 = self._file_hash.digest()
        as_it_is = self._compression == "none"
        return Upload(
            node=node,
            nar_sha256=file_sha256 if as_it_is else self._nar_hash.digest(),
            nar_size=self._file_size if as_it_is else self._nar_size,
            compression=self._compression,
            file_sha256=file_sha256,
            file_size=self._file_size,
        )

    def _decode(self, part: bytes) -> Iterator[bytes]:
        if self._nar is not None:
            yield from self._counted(self._nar, part)
            return
        self._head += part
        if len(self._head) >= SNIFFED:
            yield from self._begin()

    def _begin(self) -> Iterator[bytes]:
        """Decides what it is; the pieces that its first bytes make whole."""
        self._compression = sniff(self._head, self._name)
        self._nar = decoder(self._compression)
        head, self._head = self._head, b""
        yield from self._counted(self._nar, head)

    def _counted(self, nar: Decoder, part: bytes) -> Iterator[bytes]:
        for piece in nar.feed(part):
            # A NAR that is not compressed is its file, which is hashed already.
            if self._compression != "none":
                self._nar_hash.update(piece)
                self._nar_size += len(piece)
            yield piece
