"""A cache: what `near` lacks comes from `far`, and is kept in `near`.

Near is a convenience. While it cannot take or give, requests pass through to far; only its "absent"
is never made up: where near could not say and far has nothing, the answer is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from dataclasses import dataclass, field

from tvixstore.errors import CorruptData, Incomplete, StoreError, Unavailable
from tvixstore.log import Logger
from tvixstore.metrics import NodeMeter
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.policy.outage import Outage
from tvixstore.policy.single_flight import SingleFlight
from tvixstore.policy.tracing import note, outcome_of
from tvixstore.streams import ByteStream

# How a store fails: as it says, or as the system below it says.
_FAILURES = (StoreError, OSError)

log = Logger("tvixstore.pathinfo.cached")


@dataclass(eq=False)
class CachedPathInfoService(PathInfoService):
    """`near` in front of `far`; `meter` counts where near let it down.

    Whoever built it closes it: fetches under way belong to it.
    """

    near: PathInfoService
    far: PathInfoService
    meter: NodeMeter | None = field(default=None, repr=False)
    _fetching: SingleFlight[bytes, PathInfo | None] = field(
        default_factory=SingleFlight, init=False, repr=False
    )
    _reading: Outage = field(init=False, repr=False)
    _serving: Outage = field(init=False, repr=False)
    _keeping: Outage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A near that holds path infos alone speaks of content that far has.
        self.content = self.far.content if self.near.content is None else self.near.content
        self._reading = Outage(log, "cache.near_unreadable", "cache.near_readable")
        self._serving = Outage(log, "cache.near_cannot_serve", "cache.near_serves")
        self._keeping = Outage(log, "cache.near_unwritable", "cache.near_writable")

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        failure: Exception | None = None
        try:
            description = await self.near.describe(path_hash, nar_sha256)
        except _FAILURES as error:
            failure = self._unreadable(error)
        else:
            self._reading.over()
            if description is not None:
                return description
        description = await self.far.describe(path_hash, nar_sha256)
        if description is None and failure is not None:
            raise _unknown(failure)
        return description

    async def get(self, path_hash: bytes) -> PathInfo | None:
        failure: Exception | None = None
        try:
            info = await self.near.get(path_hash)
        except _FAILURES as error:
            failure = self._unreadable(error)
        else:
            self._reading.over()
            if info is not None:
                return info
        info = await self._fetching.run(path_hash, lambda: self._fetch(path_hash))
        if info is None and failure is not None:
            raise _unknown(failure)
        return info

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        failure: Exception | None = None
        try:
            stream = await self.near.open_nar(description, offset, length)
        except _FAILURES as error:
            failure = self.let_down(description, offset, error)
        else:
            if stream is not None:
                return _MendedStream(self, description, stream, offset, length)
        stream = await self.far.open_nar(description, offset, length, into=self.near)
        if stream is None and failure is not None:
            raise _unknown(failure)
        return stream

    async def put(self, info: PathInfo) -> PathInfo:
        return await self.near.put(info)

    def list(self) -> AsyncGenerator[PathInfo, None]:
        return self.near.list()

    async def aclose(self) -> None:
        """Ends the fetches under way."""
        await self._fetching.aclose()

    async def _fetch(self, path_hash: bytes) -> PathInfo | None:
        # The content that comes with it stays until near refers to it.
        with nullcontext() if self.content is None else self.content.session():
            return await self._fetch_into_near(path_hash)

    async def _fetch_into_near(self, path_hash: bytes) -> PathInfo | None:
        info = await self.far.get(path_hash)
        if info is None:
            return None
        started = asyncio.get_running_loop().time()
        try:
            kept = await self.near.put(info)
        except _FAILURES as error:
            self._count("keep", error, asyncio.get_running_loop().time() - started)
            self._keeping.failed(error)
            return info
        self._keeping.over()
        return kept

    def let_down(self, description: Description, position: int, error: Exception) -> Exception:
        """Notes that near could not give the path's NAR from `position` on."""
        self._count("mend", error, 0.0)
        if isinstance(error, Incomplete | CorruptData):
            # Of this path alone, and mended by the fill that comes of it.
            log.warning(
                "cache.content_lost",
                key=str(description.store_path),
                position=position,
                reason=str(error),
            )
        else:
            self._serving.failed(error)
        return error

    def served(self) -> None:
        """Notes that near gave a NAR to its end."""
        self._serving.over()

    def _unreadable(self, error: Exception) -> Exception:
        self._count("near", error, 0.0)
        self._reading.failed(error)
        return error

    def _count(self, call: str, error: Exception, seconds: float) -> None:
        if self.meter is not None:
            self.meter.observe(call, outcome_of(error), seconds)


def _unknown(failure: Exception) -> Unavailable:
    """What is raised where near failed, and far has nothing that would make up for it."""
    if isinstance(failure, Incomplete):
        return failure
    return Unavailable(f"far does not have it, and near could not be read: {failure}")


class _MendedStream(ByteStream):
    """A NAR from near, that goes on from far where near turns out to lack or have lost a piece."""

    def __init__(
        self,
        cache: CachedPathInfoService,
        description: Description,
        stream: ByteStream,
        offset: int,
        length: int | None,
    ) -> None:
        self._cache = cache
        self._description = description
        self._stream = stream
        self._position = offset
        self._end = None if length is None else offset + length
        self._mended = False

    async def __anext__(self) -> bytes:
        try:
            part = await self._stream.__anext__()
        except StopAsyncIteration:
            if not self._mended:
                self._cache.served()
            raise
        except _FAILURES as error:
            if self._mended:
                raise
            await self._go_on_from_far(error)
            part = await self._stream.__anext__()
        self._position += len(part)
        return part

    async def _go_on_from_far(self, error: Exception) -> None:
        self._mended = True
        cache, description = self._cache, self._description
        cache.let_down(description, self._position, error)
        note("cache.mended", f"near could give it up to byte {self._position} only: {error}")
        await self._stream.aclose()
        length = None if self._end is None else self._end - self._position
        stream = await cache.far.open_nar(description, self._position, length, into=cache.near)
        if stream is None:
            raise _unknown(error)
        self._stream = stream

    async def aclose(self) -> None:
        await self._stream.aclose()
