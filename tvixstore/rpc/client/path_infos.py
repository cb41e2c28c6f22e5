"""Path infos of another daemon; of one of ours also descriptions, and NARs as they come in.

NARs go through the table of fills, as those of binary caches do: verified against the hash that was
promised, spooled for everybody who wants them, and ingested here when they were right. A daemon
without the proxy's calls answers by its path infos, whose content NARs are then rendered from.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final

from tvixstore.castore import Node
from tvixstore.errors import CorruptData, Unavailable, Unsupported
from tvixstore.nar import NarIdentity, render
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import Description, PathInfo, PathInfoService
from tvixstore.pathinfo.nix import Fills
from tvixstore.pathinfo.nix.download import NarSource
from tvixstore.pathinfo.nix.fill import Fill
from tvixstore.pathinfo.nix.job import Job
from tvixstore.pathinfo.nix.stream import NarStream
from tvixstore.pathinfo.nix.upstream import Body, Resume
from tvixstore.policy.tracing import note
from tvixstore.rpc.client.call import Unimplemented
from tvixstore.rpc.client.paced import Served
from tvixstore.rpc.client.peer import Peer
from tvixstore.rpc.messages import Describe, OpenNar
from tvixstore.rpc.methods import (
    CALCULATE_NAR,
    DESCRIBE,
    GET_PATH_INFO,
    LIST_PATH_INFOS,
    OPEN_NAR,
    PUT_PATH_INFO,
)
from tvixstore.streams import ByteStream
from tvixstore.tree import Content

# Messages of a NAR, and path infos of a list, that are read ahead.
_MESSAGES_AHEAD: Final = 8
_LIST_AHEAD: Final = 64
# How often a download that breaks off goes on over a new connection.
_RETRIES: Final = 2


class GrpcPathInfoService(PathInfoService):
    """The path infos of `peer`, with their content in `content`.

    A root node that comes from there is the peer's claim; what a NAR that came through `fills` was
    ingested to is not.
    """

    def __init__(self, peer: Peer, content: Content, fills: Fills) -> None:
        self._peer = peer
        self._fills = fills
        self._content = self.content = content

    def __repr__(self) -> str:
        return repr(self._peer)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        note("grpc", f"asks {self._peer.name}")
        info = await self._peer.ask(GET_PATH_INFO, path_hash, patient=True)
        if info is not None:
            self._check(info, path_hash)
        return info

    async def put(self, info: PathInfo) -> PathInfo:
        stored = await self._peer.ask(PUT_PATH_INFO, info, patient=True)
        if stored is None:
            raise Unavailable(f"{self._peer.name} could not keep {info.store_path}")
        self._check(stored, info.store_path.hash)
        return stored

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        replies = await self._peer.serve(LIST_PATH_INFOS, None, _LIST_AHEAD)
        if replies is None:
            raise Unsupported(f"{self._peer.name} has no list of its path infos")
        async with replies:
            async for info in replies:
                yield info

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        note("grpc", f"asks {self._peer.name}")
        try:
            description = await self._peer.ask(DESCRIBE, Describe(path_hash, nar_sha256))
        except Unimplemented:
            note("grpc.no_proxy", "it knows no descriptions: its path info is asked for")
            return await super().describe(path_hash, nar_sha256)
        if description is None:
            return None
        self._check(description, path_hash)
        if nar_sha256 not in (None, description.nar_sha256):
            raise CorruptData(
                f"{self._peer.name}: asked for one NAR of {description.store_path}, "
                "it describes another"
            )
        return description

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        async def follow(fill: Fill) -> ByteStream:
            # As the caller knows it, who may have checked more of it than the peer did.
            fill.put_into(into, description)
            return await NarStream.opened(self._fills, fill, offset, length)

        return await self._fills.follow(self._job(description), follow)

    async def calculate_nar(self, root: Node) -> NarIdentity | None:
        """What the NAR of `root` is known by, found out by the peer; `None` if it cannot.

        It is the peer's claim; content that it lacks is `Unavailable`, a tree too deep for a NAR
        `InvalidData`.
        """
        try:
            identity = await self._peer.ask(CALCULATE_NAR, root, patient=True)
        except Unimplemented:
            return None
        if identity is None:
            raise Unavailable(f"{self._peer.name} lacks content of {root}")
        return identity

    def _job(self, description: Description) -> Job:
        return Job(
            source=NarSource(
                upstream=_Origin(self._peer.name, self._peer, self._content, description),
                store_path=str(description.store_path),
                url=description.store_path.base_name,
                compression="none",
                nar_sha256=description.nar_sha256,
                nar_size=description.nar_size,
                retries=_RETRIES,
            ),
            content=self._content,
            on_failure=lambda _: None,
        )

    def _check(self, description: Description, path_hash: bytes) -> None:
        if description.store_path.hash != path_hash:
            raise CorruptData(
                f"{self._peer.name}: what came for path {nixbase32.encode(path_hash)} "
                f"is of {description.store_path}"
            )


@dataclass(frozen=True)
class _Origin:
    """Where a fill gets the NAR of one path."""

    name: str
    peer: Peer = field(repr=False)
    content: Content = field(repr=False)
    description: Description = field(repr=False)
    # The peer itself bounds how much is asked of it at a time.
    max_downloads: None = None

    async def open_nar(self, url: str, resume: Resume | None = None) -> Body | None:
        offset = 0 if resume is None else resume.offset
        known = self.description
        nar = NarIdentity(known.nar_size, known.nar_sha256)
        request = OpenNar(known.store_path.hash, nar, offset)
        try:
            replies = await self.peer.serve(OPEN_NAR, request, _MESSAGES_AHEAD)
        except Unimplemented:
            return await self._render(offset)
        return None if replies is None else _NarBody(replies, self, offset)

    async def _render(self, offset: int) -> Body | None:
        info = await self.peer.ask(GET_PATH_INFO, self.description.store_path.hash, patient=True)
        if info is None or not info.same_nar(self.description):
            return None
        return _NarBody(render(self.content, info.node, offset), self, offset)


class _NarBody(Body):
    """A NAR as its origin has it, from `offset`; it can be taken up anywhere."""

    encodings = ()

    def __init__(self, source: ByteStream | Served[bytes], origin: _Origin, offset: int) -> None:
        self._source = source
        self.offset = offset
        self.length = origin.description.nar_size
        self.validator = origin.description.nar_sha256.hex()
        self.url = origin.description.store_path.base_name

    async def __anext__(self) -> bytes:
        # Whether it was long enough, and right, is for the fill to judge.
        while not (part := await self._source.__anext__()):
            pass
        return part

    async def aclose(self) -> None:
        await self._source.aclose()
