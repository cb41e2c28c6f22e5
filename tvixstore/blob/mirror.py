"""The same blobs in several places: written to all, read from any, repaired where some lack."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from blake3 import blake3

from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.outline import update
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.blob.verify import VerifyBlobService
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import CorruptData, Incomplete, StoreError
from tvixstore.log import Logger
from tvixstore.policy.quorum import Outcomes, at_all
from tvixstore.policy.race import Member
from tvixstore.policy.repairs import Repair, Repairs
from tvixstore.streams import ByteStream

Result = TypeVar("Result")

log = Logger("tvixstore.blob.mirror")


@dataclass(eq=False)
class MirrorBlobService(FallbackBlobService):
    """Writes to all `members`, of which `quorum` have to succeed, and asks them in order.

    A blob goes to all of them as it comes. One that fails is dropped from it as long as there are
    enough others, and gets the blob later (`repairs`), like one that is found to lack what another
    has. Whoever built it closes it.
    """

    quorum: int = 1
    repair: bool = True
    count: Callable[[str], None] = field(default=lambda _: None, repr=False)
    repairs: Repairs[Digest] | None = field(default=None, init=False, repr=False)
    _plain: Sequence[BlobService] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._plain = self.members
        if self.repair:
            self.repairs = Repairs(", ".join(self.names), self._repair, self.count)
            self.members = [
                _Noting(member, index, self.repairs) for index, member in enumerate(self._plain)
            ]

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        opened = await self.at_all(
            lambda member: member.open_write(boundaries), lambda writer: writer.abort()
        )
        return _MirrorWriter(self, dict(opened.done), opened.failed)

    async def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.lost([digest], await self.at_all(lambda member: member.put(data)))
        return digest

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests = [Digest.of(data) for data in blobs]
        self.lost(digests, await self.at_all(lambda member: member.put_many(blobs)))
        return digests

    def failed(self, digest: Digest, index: int, error: Exception) -> None:
        super().failed(digest, index, error)
        if self.repairs is not None and isinstance(error, CorruptData | Incomplete):
            self.repairs.lacks(digest, index)

    async def aclose(self) -> None:
        """Ends the repairs."""
        if self.repairs is not None:
            await self.repairs.aclose()

    async def at_all(
        self,
        write: Callable[[BlobService], Coroutine[Any, Any, Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> Outcomes[Result]:
        """Has all members do it; raises unless enough of them did."""
        members = {
            index: Member(self.names[index], partial(write, member))
            for index, member in enumerate(self._plain)
        }
        return await at_all(members, self.quorum, dispose=dispose)

    def lost(self, digests: Sequence[Digest], outcomes: Outcomes[Any]) -> None:
        """Has those who failed to take the blobs get them later."""
        for index, error in outcomes.failed.items():
            self.dropped(index, error)
            if self.repairs is not None:
                source = min(outcomes.done)
                for digest in digests:
                    self.repairs.request(Repair(digest, source, index))

    def dropped(self, index: int, error: Exception) -> None:
        """Says that a member missed a write."""
        log.info(
            "mirror.member_dropped",
            node=self.names[index],
            reason=str(error) or type(error).__name__,
        )

    async def _repair(self, repair: Repair[Digest]) -> bool:
        source, target = self._plain[repair.source], self._plain[repair.target]
        stream = await VerifyBlobService(source).open_read(repair.key)
        if stream is None:
            return False
        async with stream:
            sizes = [chunk.size for chunk in await source.chunks(repair.key) or ()]
            async with await target.open_write(sizes or None) as writer:
                async for part in stream:
                    await writer.write(part)
                if await writer.close() != repair.key:
                    raise CorruptData(f"{self.names[repair.target]} took {repair.key} for another")
        return True


@dataclass(eq=False)
class _Noting(BlobWrapper):
    """Tells `repairs` what the member at `index` has, and what it lacks."""

    index: int
    repairs: Repairs[Digest]

    async def has(self, digest: Digest) -> bool:
        return await self._noted(digest, self.inner.has(digest), bool)

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        return await self._noted(digest, self.inner.chunks(digest))

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        return await self._noted(digest, self.inner.open_read(digest, offset, length, size))

    async def _noted(
        self,
        digest: Digest,
        answer: Awaitable[Result],
        is_there: Callable[[Result], bool] = lambda answer: answer is not None,
    ) -> Result:
        try:
            result = await answer
        except (CorruptData, Incomplete):
            self.repairs.lacks(digest, self.index)
            raise
        if digest != EMPTY_DIGEST:
            (self.repairs.has if is_there(result) else self.repairs.lacks)(digest, self.index)
        return result


class _MirrorWriter(BlobWriter):
    """A writer at each member that still takes part, by index."""

    def __init__(
        self,
        mirror: MirrorBlobService,
        writers: dict[int, BlobWriter],
        failed: Mapping[int, Exception],
    ) -> None:
        self._mirror = mirror
        self._writers = writers
        # Those that dropped out, and what of theirs is still to be aborted.
        self._failed: dict[int, Exception] = {}
        self._left: list[BlobWriter] = []
        self._hasher = blake3()
        self._digest: Digest | None = None
        self._note(failed)

    async def write(self, data: bytes) -> None:
        await update(self._hasher, data)
        self._drop(await self._at_all(lambda writer: writer.write(data)))

    async def close(self) -> Digest:
        if self._digest is not None:
            return self._digest
        digest = Digest(self._hasher.digest())

        async def close(writer: BlobWriter) -> Digest:
            if (got := await writer.close()) != digest:
                raise CorruptData(f"took blob {digest} for {got}")
            return digest

        outcomes = await self._at_all(close)
        self._drop(outcomes)
        self._digest = digest
        self._mirror.lost([digest], Outcomes(outcomes.done, self._failed))
        return digest

    async def abort(self) -> None:
        writers = [*self._left, *self._writers.values()]
        self._left.clear()
        if self._digest is None:
            self._writers.clear()
        for writer in writers:
            try:
                await writer.abort()
            except (StoreError, OSError) as error:
                # It forgets by itself then; what went wrong has been said of the write.
                log.debug("mirror.abort_failed", reason=error)

    async def _at_all(
        self, write: Callable[[BlobWriter], Coroutine[Any, Any, Result]]
    ) -> Outcomes[Result]:
        members = {
            index: Member(self._mirror.names[index], partial(write, writer))
            for index, writer in self._writers.items()
        }
        return await at_all(members, self._mirror.quorum)

    def _drop(self, outcomes: Outcomes[Any]) -> None:
        self._note(outcomes.failed)
        self._left += [self._writers.pop(index) for index in outcomes.failed]

    def _note(self, failed: Mapping[int, Exception]) -> None:
        self._failed |= failed
