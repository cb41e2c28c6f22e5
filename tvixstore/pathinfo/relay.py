"""A NAR that goes on from another member where one breaks off, under one hash over all of it.

Each member vouches for the bytes of its own NAR, and for none of what another sent before. So the
whole is hashed on the way, and where more than one had a part in it, the last piece goes out only
when all of it was right. Of groups within groups, the outermost with a choice does that, and those
below go on for it with any part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tvixstore.errors import CorruptData, StoreError, Unavailable
from tvixstore.log import Logger
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.info import Description
from tvixstore.pathinfo.service import PathInfoService
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


class NarRelay(ByteStream):
    """The NAR of `description` from `member`, whose `stream` is open, and from `others` in turn."""

    def __init__(
        self,
        description: Description,
        member: NarMember,
        stream: ByteStream,
        others: list[NarMember],
        into: PathInfoService | None,
        offset: int = 0,
    ) -> None:
        self._description = description
        self._member = member
        self._stream = stream
        self._others = others
        self._into = into
        self._position = offset
        # With nobody to go on, the member's own word is enough.
        self._hash = hashlib.sha256() if others and not is_hashed_above() else None
        self._parts = [member]

    async def __anext__(self) -> bytes:
        while True:
            try:
                part = await self._stream.__anext__()
            except StopAsyncIteration:
                if len(self._parts) > 1 and self._position != self._description.nar_size:
                    raise self._wrong("ends too early") from None
                raise
            except (StoreError, OSError) as error:
                await self._switch(error)
            else:
                self._check(part)
                return part

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _check(self, part: bytes) -> None:
        self._position += len(part)
        if self._hash is None:
            return
        self._hash.update(part)
        if len(self._parts) > 1 and self._position >= self._description.nar_size:
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
        while self._others:
            member = self._others.pop(0)
            try:
                with hashed_above(True):
                    stream = await member.service.open_nar(
                        self._description, self._position, None, self._into
                    )
            except Exception as another:
                member.failed(another)
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
        if isinstance(error, StoreError):
            raise error
        raise Unavailable(str(error)) from error
