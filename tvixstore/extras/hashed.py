"""A file that is called by its hash, and held against it on its way through."""

from __future__ import annotations

import hashlib

from tvixstore.errors import CorruptData
from tvixstore.pathinfo.nix.upstream import Body
from tvixstore.streams import ByteStream


class HashedFile(ByteStream):
    """`body`, whose last piece is held back until all of it hashes to `sha256`."""

    def __init__(self, body: Body, sha256: bytes) -> None:
        self._body = body
        self._sha256 = sha256
        self._hash = hashlib.sha256()
        self._held: bytes | None = None
        self._over = False

    async def __anext__(self) -> bytes:
        while not self._over:
            try:
                piece = await self._body.__anext__()
            except StopAsyncIteration:
                return self._last()
            # What came in at once is at most some hundred KiB: a fraction of a millisecond.
            self._hash.update(piece)
            held, self._held = self._held, piece
            if held is not None:
                return held
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._body.aclose()

    def _last(self) -> bytes:
        self._over = True
        if self._held is None:
            raise CorruptData(f"{self._body.url} is empty")
        if self._body.encodings or self._hash.digest() != self._sha256:
            raise CorruptData(f"{self._body.url} does not hash to its name")
        return self._held
