"""The extras of one substituter, as far as they can be believed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from tvixstore.errors import CorruptData, InvalidData, Skipped, StoreError, Untrusted
from tvixstore.extras.documents import MAX_DOCUMENT_BYTES, check_document
from tvixstore.extras.names import ExtraName, Kind
from tvixstore.extras.texts import plain_text
from tvixstore.nix import KeyRing
from tvixstore.pathinfo.nix import Upstream
from tvixstore.pathinfo.nix.upstream import Body
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.retry import Retry
from tvixstore.pools import Pools
from tvixstore.streams import BytesStream, ByteStream

Result = TypeVar("Result")


@dataclass(eq=False)
class ExtrasSource:
    """`upstream` behind the very breaker and with the retries that its narinfos have.

    Its realisations count if one of `keys` signed them, as its narinfos do; `None` trusts it. That
    it cannot say is `Skipped` where its owner declared it `optional`, as for narinfos.
    """

    name: str
    upstream: Upstream
    keys: KeyRing | None
    pools: Pools = field(repr=False)
    breaker: Breaker | None = field(default=None, repr=False)
    retry: Retry = field(default=Retry(1), repr=False)
    optional: bool = False

    async def open(self, name: ExtraName) -> ByteStream | None:
        """The extra, decoded and checked; `None` if the upstream has none."""
        if name.kind is Kind.LOG:
            return await self._asked(lambda: self._log(name))
        return await self._asked(lambda: self._document(name))

    async def open_file(self, path: str) -> Body | None:
        """A file of the upstream as it is."""
        return await self._asked(lambda: self.upstream.open_file(path))

    async def _asked(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        async def attempts() -> Result:
            return await self.retry.run(ask)

        try:
            if self.breaker is None:
                return await attempts()
            return await self.breaker.run(attempts)
        except StoreError as error:
            down = self.breaker is not None and self.breaker.is_open
            if self.optional and (down or isinstance(error, CorruptData)):
                raise Skipped(str(error), [self.name], answered=False) from error
            raise

    async def _log(self, name: ExtraName) -> ByteStream | None:
        body = await self._body(name)
        return None if body is None else _LogStream(self.name, body, self.pools)

    async def _document(self, name: ExtraName) -> ByteStream | None:
        body = await self._body(name)
        if body is None:
            return None
        data = bytearray()
        try:
            async with body, aclosing(plain_text(body, body.encodings, self.pools)) as pieces:
                async for piece in pieces:
                    data += piece
                    if len(data) > MAX_DOCUMENT_BYTES:
                        break
            return BytesStream(check_document(name, bytes(data), self.keys))
        except InvalidData as error:
            raise CorruptData(f"{self.name}: {error}") from error
        except Untrusted as error:
            raise Untrusted(f"{self.name}: {error}") from error

    async def _body(self, name: ExtraName) -> Body | None:
        body = await self.upstream.open_file(name.path)
        try:
            await self.upstream.check_store_dir()
        except BaseException:
            if body is not None:
                await body.aclose()
            raise
        return body


class _LogStream(ByteStream):
    """A log that is being downloaded, as plain text."""

    def __init__(self, name: str, body: Body, pools: Pools) -> None:
        self._name = name
        self._body = body
        self._pieces: AsyncGenerator[bytes, None] = plain_text(body, body.encodings, pools)

    async def __anext__(self) -> bytes:
        try:
            return await self._pieces.__anext__()
        except InvalidData as error:
            raise CorruptData(f"{self._name}: a log: {error}") from error

    async def aclose(self) -> None:
        await self._pieces.aclose()
        await self._body.aclose()
