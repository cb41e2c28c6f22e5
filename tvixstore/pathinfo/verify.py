"""Believes nothing: signatures are checked, and content is rendered and hashed here.

A signature is over the NAR and not over the root node, so a node that came from another machine is
trusted only once its NAR, rendered here, turned out to be the one that was signed. That is found
out once, and remembered by the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, fields

from tvixstore.errors import CorruptData, Incomplete, InvalidData
from tvixstore.log import Logger
from tvixstore.nar import NarIdentities, NarIdentity
from tvixstore.nix import KeyRing
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.nix.trust import judge
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.streams import ByteStream

log = Logger("tvixstore.pathinfo.verify")


@dataclass(eq=False)
class VerifyPathInfoService(PathInfoWrapper):
    """What comes from `inner` and is wrong is `CorruptData`.

    `nars` has the content that nodes speak of, and what is known of their NARs. With `keys` a path
    has to be signed by one of them, unless it is its own proof: an address of its NAR's SHA-256.
    """

    nars: NarIdentities = field(repr=False)
    keys: KeyRing | None = None
    # Path infos left out of `list`, as they were wrong or their content was not to be had.
    left_out: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.content = self.nars.content

    async def get(self, path_hash: bytes) -> PathInfo | None:
        info = await self.inner.get(path_hash)
        if info is not None:
            self._judge(path_hash, info)
            await self._hold_against_content(info)
        return info

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        description = await self.inner.describe(path_hash, nar_sha256)
        if description is None or nar_sha256 not in (None, description.nar_sha256):
            return None
        self._judge(path_hash, description)
        if not isinstance(description, PathInfo):
            return description
        # Nothing is fetched for a description, so only what was found out before counts.
        if await self.nars.known(description.node) == _promised(description):
            return description
        return _without_node(description)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        if offset >= description.nar_size or length == 0:
            return await self.inner.open_nar(description, offset, length, into)
        # All of it is hashed, whatever part is wanted: inner is not to be believed.
        stream = await self.inner.open_nar(description, into=into)
        return None if stream is None else _HashedNar(stream, description, offset, length)

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        async with aclosing(self.inner.list()) as infos:
            async for info in infos:
                try:
                    self._judge(info.store_path.hash, info)
                    await self._hold_against_content(info)
                except (CorruptData, Incomplete) as error:
                    self.left_out += 1
                    log.warning("verify.left_out", key=info.store_path, reason=error)
                else:
                    yield info

    def _judge(self, path_hash: bytes, description: Description) -> None:
        path = description.store_path
        if path.hash != path_hash:
            raise CorruptData(f"what came for another path is of {path}")
        if self.keys is None:
            return
        try:
            proof = judge(description, self.keys)
        except InvalidData as error:
            raise CorruptData(f"{path}: {error}") from error
        if proof is not None:
            raise CorruptData(f"{path} has no trusted signature, and an address that is no proof")

    async def _hold_against_content(self, info: PathInfo) -> None:
        try:
            found = await self.nars.of(info.node)
        except InvalidData as error:
            raise CorruptData(f"{info.store_path}: {error}") from error
        if found != _promised(info):
            raise CorruptData(
                f"{info.store_path} promises a NAR with sha256 {info.nar_sha256.hex()} of "
                f"{info.nar_size} bytes, but its node has one with {found.sha256.hex()} of "
                f"{found.size} bytes"
            )


def _promised(info: Description) -> NarIdentity:
    return NarIdentity(info.nar_size, info.nar_sha256)


def _without_node(info: PathInfo) -> Description:
    return Description(**{each.name: getattr(info, each.name) for each in fields(Description)})


class _HashedNar(ByteStream):
    """Part of the NAR in `stream`, whose last piece goes out when the whole turned out right."""

    def __init__(
        self, stream: ByteStream, promised: Description, offset: int, length: int | None
    ) -> None:
        self._stream = stream
        self._promised = promised
        self._skip = offset
        self._left = promised.nar_size - offset
        if length is not None:
            self._left = min(self._left, length)
        self._hasher = hashlib.sha256()
        self._size = 0
        self._held: bytes | None = None
        self._ended = False
        self._error: CorruptData | None = None

    async def __anext__(self) -> bytes:
        while not self._ended:
            if self._error is not None:
                raise self._error
            part = await anext(self._stream, None)
            held = self._take(part)
            if held:
                return held
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._ended = True
        self._held = None
        await self._stream.aclose()

    def _take(self, part: bytes | None) -> bytes | None:
        """Hashes the next part, or what it all comes to at the end; what may go out now."""
        if part is None:
            self._ended = True
        else:
            self._hasher.update(part)
            self._size += len(part)
        promised, size = self._promised, self._size
        too_long = size > promised.nar_size
        if too_long or (part is None and self._hasher.digest() != promised.nar_sha256):
            self._ended = False
            self._error = CorruptData(
                f"{promised.store_path}: the NAR that came is not the one with sha256 "
                f"{promised.nar_sha256.hex()} of {promised.nar_size} bytes"
            )
            raise self._error
        wanted = b"" if part is None else self._clip(part)
        if part is not None and not wanted:
            return None
        held, self._held = self._held, wanted
        return held

    def _clip(self, part: bytes) -> bytes:
        skipped = min(self._skip, len(part))
        self._skip -= skipped
        wanted = part[skipped : skipped + self._left]
        self._left -= len(wanted)
        return wanted
