"""The path-info service: what is known of a store path, by its 20-byte hash."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from tvixstore.errors import Unsupported
from tvixstore.nar import render
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.streams import ByteStream
from tvixstore.tree import Content


class PathInfoService(ABC):
    """Path infos by hash. `None` is absent; an exception is unknown (or broken), never absent."""

    # Where the content of its paths is, for services that hold castore nodes.
    content: Content | None = None

    @abstractmethod
    async def get(self, path_hash: bytes) -> PathInfo | None:
        """The path info, its content fetched and verified if need be, or `None` if absent."""

    @abstractmethod
    async def put(self, info: PathInfo) -> PathInfo:
        """Stores it, durably, and returns what is now stored.

        A path that is there with the same NAR hash gets the signatures merged; with another one
        the put is refused (`InvalidData`), unless the new one is trusted and the old one is not.
        """

    @abstractmethod
    def list(self) -> AsyncGenerator[PathInfo, None]:
        """All path infos, in no particular order. Whoever stops early closes the generator."""

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        """What a narinfo says, without fetching content; `None` if absent.

        It may be a whole `PathInfo` where that costs nothing: front doors then hand out URLs by
        content. With `nar_sha256` only a path with that very NAR counts, others are absent.
        """
        info = await self.get(path_hash)
        if info is None or nar_sha256 not in (None, info.nar_sha256):
            return None
        return info

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        """The NAR that `description` promises, as it becomes available; `None` if not to be had.

        Served only where this service's own description has the same NAR hash and size. The stream
        breaks with a `StoreError` rather than deliver the last byte of a wrong NAR. `into` asks
        whoever downloads the NAR on the way to put the path info there when its content is in.
        """
        if self.content is None:
            raise Unsupported(f"{self!r} holds no content to render a NAR from")
        info = await self.get(description.store_path.hash)
        if info is None or not info.same_nar(description):
            return None
        return render(self.content, info.node, offset, length)
