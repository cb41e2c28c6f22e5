"""The NAR that a fill brings, as a stream that survives a spool without room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvixstore.activity import follow
from tvixstore.log import Logger
from tvixstore.pathinfo.nix.download import Gone
from tvixstore.policy.spool import Overrun, SpoolReader
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream

if TYPE_CHECKING:
    from tvixstore.pathinfo.nix.fill import Fill
    from tvixstore.pathinfo.nix.fills import Fills

log = Logger("tvixstore.pathinfo.nix.stream")


class NarStream(ByteStream):
    """Follows a fill. Left behind by one that only passes, it downloads the rest for itself."""

    def __init__(self, fills: Fills, fill: Fill, offset: int, length: int | None) -> None:
        self._fills = fills
        self._job = fill.job
        self._end = None if length is None else offset + length
        self._reader: SpoolReader = fill.spool.open_reader(offset, length)
        self._follows = follow(fill.work, joined=fill.is_joined())

    @classmethod
    async def opened(cls, fills: Fills, fill: Fill, offset: int, length: int | None) -> NarStream:
        """One that has its first byte. Raises what broke the fill."""
        stream = cls(fills, fill, offset, length)
        try:
            await stream.ready()
        except BaseException:
            await stream.aclose()
            if isinstance(fill.error, Gone):
                raise fill.error from None
            raise
        return stream

    async def ready(self) -> None:
        """Waits for the first byte; raises what broke the fill."""
        await self._reader.ready()

    async def __anext__(self) -> bytes:
        try:
            return await self._reader.__anext__()
        except Overrun:
            await self._download_alone()
            return await self._reader.__anext__()

    async def aclose(self) -> None:
        if self._follows is not None:
            self._follows.close()
        await self._reader.aclose()

    async def _download_alone(self) -> None:
        behind = self._reader
        length = None if self._end is None else self._end - behind.position
        fill = self._fills.start(self._job, shared=False)
        self._reader = fill.spool.open_reader(behind.position, length)
        if self._follows is not None:
            self._follows.close()
            self._follows = follow(fill.work, joined=fill.is_joined())
        note("download.again", f"fell behind at byte {behind.position}: downloads for itself")
        log.info(
            "fill.again",
            node=self._job.source.upstream.name,
            key=self._job.source.store_path,
            bytes=behind.position,
            reason="a reader fell behind while the store takes nothing; it downloads for itself",
        )
        await behind.aclose()
