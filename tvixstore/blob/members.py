"""What racing and falling back have in common: members, of which the first valid answer counts.

Of a whole blob that is its first verified piece: the members' own chunk lists say what to verify it
by. All of it is hashed on the way. Where a member fails in mid-stream, another one goes on from
there; one that failed is asked last for that blob for a while.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from tvixstore.blob.checked import CheckedStream
from tvixstore.blob.outline import PIECE, outline_of
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.castore import EMPTY_DIGEST, Digest
from tvixstore.errors import ReadOnly, StoreError
from tvixstore.log import Logger
from tvixstore.policy.race import Member
from tvixstore.policy.ttl import TtlMap
from tvixstore.streams import BytesStream, ByteStream

Result = TypeVar("Result")

# Blobs, and seconds, for which a member that failed is asked last.
_BLOBS = 20_000
_SET_BACK = 300.0

log = Logger("tvixstore.blob.members")


@dataclass(eq=False)
class BlobMembers(BlobService):
    """Several services that are asked for the same blobs; `names` are theirs in logs and errors."""

    members: Sequence[BlobService]
    names: Sequence[str]
    # For (blob, member): the number of its latest failure among all.
    _set_back: TtlMap[tuple[Digest, int], int] = field(
        default_factory=lambda: TtlMap(_BLOBS), init=False, repr=False
    )
    _failures: int = field(default=0, init=False, repr=False)

    @abstractmethod
    async def _first(
        self,
        members: Sequence[Member[Result]],
        dispose: Callable[[Result], Awaitable[None]] | None = None,
    ) -> tuple[int, Result] | None:
        """The first right answer with its member's place; `None` only if all said absent."""

    async def has(self, digest: Digest) -> bool:
        async def ask(member: BlobService) -> bool | None:
            return await member.has(digest) or None

        return digest == EMPTY_DIGEST or await self._ask(digest, ask) is not None

    async def chunks(self, digest: Digest) -> list[Chunk] | None:
        if digest == EMPTY_DIGEST:
            return []
        return await self._ask(digest, lambda member: member.chunks(digest))

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        if digest == EMPTY_DIGEST:
            return BytesStream()
        order = self._order(digest)
        end = None if length is None else offset + length
        answer = await self._first(
            [
                Member(
                    self.names[index],
                    partial(self._open, index, digest, offset, end, size),
                    self._is_set_back(digest, index),
                )
                for index in order
            ],
            _MemberStream.aclose,
        )
        if answer is None:
            return None
        place, stream = answer
        stream.relay.others = [*order[:place], *order[place + 1 :]]
        return stream

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        return await self._write(lambda member: member.open_write(boundaries))

    async def put(self, data: bytes) -> Digest:
        return await self._write(lambda member: member.put(data))

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        return await self._write(lambda member: member.put_many(blobs))

    async def _ask(
        self, digest: Digest, ask: Callable[[BlobService], Coroutine[Any, Any, Result | None]]
    ) -> Result | None:
        answer = await self._first(
            [
                Member(
                    self.names[index],
                    partial(ask, self.members[index]),
                    self._is_set_back(digest, index),
                )
                for index in self._order(digest)
            ]
        )
        return None if answer is None else answer[1]

    async def _open(
        self, index: int, digest: Digest, offset: int, end: int | None, size: int | None
    ) -> _MemberStream | None:
        """A member's stream whose first piece is at hand, and right; `None` if he has none."""
        claimed = None
        whole = not offset and end is None
        if whole and (size is None or size > PIECE):
            chunks = await self.members[index].chunks(digest)
            if chunks is None:
                return None
            claimed = outline_of(chunks)
        relay = _Relay(self, digest, offset, end, size)
        if not await relay.begin(index):
            return None
        stream = _MemberStream(relay, CheckedStream(digest, relay, claimed) if whole else relay)
        try:
            await stream.ready()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def _write(self, write: Callable[[BlobService], Awaitable[Result]]) -> Result:
        for member in self.members:
            try:
                return await write(member)
            except ReadOnly:
                continue
        raise ReadOnly(f"none of {', '.join(self.names)} takes writes")

    def _order(self, digest: Digest) -> list[int]:
        """The members' indexes; whoever failed last for this blob comes last."""
        return sorted(
            range(len(self.members)), key=lambda index: self._set_back.get((digest, index)) or 0
        )

    def _is_set_back(self, digest: Digest, index: int) -> bool:
        return self._set_back.get((digest, index)) is not None

    def failed(self, digest: Digest, index: int, error: Exception) -> None:
        """Notes that a member's stream of the blob broke."""
        self._failures += 1
        self._set_back.put((digest, index), self._failures, _SET_BACK)
        log.info(
            "member.set_back",
            node=self.names[index],
            key=digest,
            reason=str(error) or type(error).__name__,
        )


class _Relay(ByteStream):
    """The bytes from one member, and from where he fails, from the next of `others`."""

    def __init__(
        self, members: BlobMembers, digest: Digest, offset: int, end: int | None, size: int | None
    ) -> None:
        self.others: list[int] = []
        self.index = 0
        self.members = members
        self.digest = digest
        self._position = offset
        self._end = end
        self._size = size
        self._source: ByteStream = BytesStream()

    async def begin(self, index: int) -> bool:
        """Goes on with that member; `False` if he does not have the blob."""
        length = None if self._end is None else self._end - self._position
        source = await self.members.members[index].open_read(
            self.digest, self._position, length, self._size
        )
        if source is None:
            return False
        self.index, self._source = index, source
        return True

    async def __anext__(self) -> bytes:
        while True:
            try:
                part = await self._source.__anext__()
            except (StoreError, OSError) as error:
                if not self.others:
                    raise
                await self._switch(error)
            else:
                self._position += len(part)
                return part

    async def aclose(self) -> None:
        await self._source.aclose()

    async def _switch(self, error: Exception) -> None:
        self.members.failed(self.digest, self.index, error)
        await self._source.aclose()
        while self.others:
            index = self.others.pop(0)
            try:
                if await self.begin(index):
                    return
            except (StoreError, OSError) as another:
                self.members.failed(self.digest, index, another)
        raise error


class _MemberStream(ByteStream):
    """`inner`, over `relay`, with its first piece fetched ahead; tells when it breaks for good."""

    def __init__(self, relay: _Relay, inner: ByteStream) -> None:
        self.relay = relay
        self._inner = inner
        self._first: bytes | None = None

    async def ready(self) -> None:
        self._first = await anext(self._inner, None)

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        relay = self.relay
        try:
            return await self._inner.__anext__()
        except (StoreError, OSError) as error:
            relay.members.failed(relay.digest, relay.index, error)
            raise

    async def aclose(self) -> None:
        self._first = None
        await self._inner.aclose()
