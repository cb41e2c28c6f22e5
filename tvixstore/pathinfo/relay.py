"""A NAR that goes on from another member where one breaks off, under one hash over all of it.

Each member vouches for the bytes of its own NAR, and for none of what another sent before. So the
whole is hashed on the way, and where more than one had a part in it, the last piece goes out only
when all of it was right. Of groups within groups, the outermost with a choice does that, and those
below go on for it with any part.

Of a part that a client asks for there is no hash. Whoever goes on with it sends it from its
beginning: what went out already has to be the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from tvixstore.errors import CorruptData, StoreError, Unavailable
from tvixstore.log import Logger
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.policy.elsewhere import elsewhere, is_elsewhere
from tvixstore.policy.spool import Doubted
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream

log = Logger("tvixstore.pathinfo.relay")

_hashed: ContextVar[bool] = ContextVar("hashed", default=False)


def is_hashed_above() -> bool:
    """Whether somebody who asked for this NAR hashes all of it."""
    return _hashed.get()


@contextmanager
def hashed_above(hashed: bool) -> Iterator[None]:
    """For who opens a NAR inside: whether it is hashed as a whole here."""
    token = _hashed.set(hashed)
    try:
        yield
    finally:
        _hashed.reset(token)


@dataclass(frozen=True, slots=True)
class NarMember:
    """Somebody who may have a NAR; `failed` hears of it where he cannot bring it."""

    name: str
    service: PathInfoService
    failed: Callable[[Exception], None]
    # Was in doubt, and is asked again as there is nobody else.
    again: bool = False

    def once_more(self, error: Exception) -> list[NarMember]:
        """Itself, to be asked after all others, if `error` may pass: at most once."""
        return [replace(self, again=True)] if isinstance(error, Doubted) and not self.again else []

    async def get(self, path_hash: bytes, *, others: bool) -> PathInfo | None:
        """What it has of the path, with the content; `others` as for `open_nar`."""
        with elsewhere(others and not self.again):
            return await self.service.get(path_hash)

    async def open_nar(
        self,
        description: Description,
        offset: int,
        length: int | None,
        into: PathInfoService | None,
        *,
        others: bool,
    ) -> ByteStream | None:
        """Its NAR; with `others`, nobody need wait for it in vain."""
        with elsewhere(others and not self.again):
            return await self.service.open_nar(description, offset, length, into)


class NarRelay(ByteStream):
    """The NAR of `description`, or the part from `offset` of `length` bytes: from `member`, whose
    `stream` is open, and from `others` in turn."""

    def __init__(
        self,
        description: Description,
        member: NarMember,
        stream: ByteStream,
        others: list[NarMember],
        into: PathInfoService | None,
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        self._description = description
        self._member = member
        self._stream = stream
        self._others = others
        self._into = into
        self._offset, self._length = offset, length
        self._position = offset
        size = description.nar_size
        self._end = size if length is None else min(size, offset + length)
        hashed = is_hashed_above() and length is None
        self._is_part = not hashed and (offset > 0 or length is not None)
        # Of what went out. With nobody to go on, the member's own word is enough.
        self._hash = hashlib.sha256() if others and not hashed else None
        # What the one who went on with a part sent beyond what had gone out.
        self._ahead = b""
        self._parts = [member]
        self._elsewhere = is_elsewhere()
        self._doubt: Doubted | None = None

    async def __anext__(self) -> bytes:
        while True:
            try:
                part = await self._next()
            except StopAsyncIteration:
                if len(self._parts) > 1 and self._position != self._end:
                    raise self._wrong("ends too early") from None
                raise
            except (StoreError, OSError) as error:
                await self._switch(error)
            else:
                self._check(part)
                return part

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _next(self) -> bytes:
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        return await self._stream.__anext__()

    def _check(self, part: bytes) -> None:
        self._position += len(part)
        if self._hash is None:
            return
        self._hash.update(part)
        if len(self._parts) > 1 and not self._is_part and self._position >= self._end:
            if self._hash.digest() != self._description.nar_sha256:
                raise self._wrong("is another one")

    def _wrong(self, what: str) -> CorruptData:
        error = CorruptData(
            f"what {' and '.join(part.name for part in self._parts)} sent together of the NAR of "
            f"{self._description.store_path} {what}"
        )
        for part in self._parts:
            part.failed(error)
        self._others.clear()
        return error

    async def _switch(self, error: Exception) -> None:
        """Goes on with the next who has the same NAR; raises `error` if nobody has."""
        self._member.failed(error)
        await self._stream.aclose()
        self._keep_in_mind(self._member, error)
        while self._others:
            member = self._others.pop(0)
            others = self._elsewhere or bool(self._others)
            try:
                stream = await self._open(member, others)
            except Exception as another:
                member.failed(another)
                self._keep_in_mind(member, another)
                if not isinstance(another, StoreError | OSError):
                    log.error("member.crashed", exc_info=another, node=member.name)
                continue
            if stream is not None:
                log.info(
                    "nar.continued",
                    node=member.name,
                    key=nixbase32.encode(self._description.store_path.hash),
                    bytes=self._position,
                    reason=str(error) or type(error).__name__,
                )
                text = f"{member.name} went on at byte {self._position}: {error}"
                note("nar.continued", text)
                self._member, self._stream = member, stream
                self._parts.append(member)
                return
        if self._doubt is not None:
            raise self._doubt
        if isinstance(error, StoreError) and not isinstance(error, Doubted):
            raise error
        raise Unavailable(str(error)) from error

    async def _open(self, member: NarMember, others: bool) -> ByteStream | None:
        """What is left of it, from `member`; raises if that would not be of the same NAR."""
        begin = self._offset if self._is_part else self._position
        with hashed_above(not self._is_part):
            stream = await member.open_nar(
                self._description, begin, self._length, self._into, others=others
            )
        if stream is not None and self._is_part:
            try:
                self._ahead = await self._catch_up(stream)
            except BaseException:
                await stream.aclose()
                raise
        return stream

    async def _catch_up(self, stream: ByteStream) -> bytes:
        """Reads what went out already, and returns what came along with the end of it."""
        again, left, part = hashlib.sha256(), self._position - self._offset, b""
        while left > 0:
            try:
                part = await stream.__anext__()
            except StopAsyncIteration:
                raise Unavailable("the part ends too early") from None
            again.update(part[:left])
            left -= len(part)
        went_out = self._position > self._offset
        if went_out and (self._hash is None or again.digest() != self._hash.digest()):
            raise CorruptData(f"this is not what {self._parts[-1].name} sent of the same part")
        return part[len(part) + left :]

    def _keep_in_mind(self, member: NarMember, error: Exception) -> None:
        """Comes back to who is in doubt, or leaves that to those above who can ask others."""
        if not self._elsewhere:
            self._others += member.once_more(error)
        elif isinstance(error, Doubted):
            self._doubt = error
