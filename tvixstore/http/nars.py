"""NARs, by hash and by castore node: whole, in part, or not at all if the client has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from tvixstore.castore import Digest, Node, encode_node
from tvixstore.errors import Incomplete, StorageFull, StoreError
from tvixstore.explain import found
from tvixstore.http.answers import Answer, absent, text
from tvixstore.http.body import prime
from tvixstore.http.codings import PREFERRED, accepted
from tvixstore.http.encoded import EncodedStream
from tvixstore.http.ranges import Part, Unsatisfiable, matches, select
from tvixstore.http.urls import NarByHash, NarByNode
from tvixstore.log import Logger
from tvixstore.nar import nar_size, render
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import Description, PathInfo, PathInfoService
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream
from tvixstore.tree import Content

_log = Logger("tvixstore.http")

_FIELDS = {
    "Content-Type": "application/x-nix-nar",
    "Cache-Control": "public, max-age=31536000, immutable",
}
_VARY = "Accept-Encoding"


class Nar(Protocol):
    """A NAR that can be opened."""

    size: int
    etag: str

    async def open(self, offset: int, length: int | None) -> ByteStream | None:
        """Its bytes, the first of them read already; `None` if it is not to be had."""


async def answer(nar: Nar, method: str, headers: Mapping[str, str], pools: Pools | None) -> Answer:
    """What a request with `headers` is to get of `nar`, in a coding that its client takes."""
    codings = accepted(headers.get("Accept-Encoding"))
    if not codings:
        return text(
            HTTPStatus.NOT_ACCEPTABLE,
            "invalid",
            f"Accept-Encoding excludes all that there is: {', '.join(PREFERRED)}",
            Vary=_VARY,
        )
    fields = {**_FIELDS, "Vary": _VARY}
    # A client that holds several forms of it may have any that it takes.
    for coding in codings:
        if _has(headers, etag := _etag_in(nar, coding)):
            return _not_modified(fields, etag)
    if codings[0] == "identity":
        return await _plain(nar, method, headers, fields)
    fields["Content-Encoding"] = codings[0]
    return await _encoded(nar, method, codings[0], fields, pools)


async def compressed(
    nar: Nar, method: str, headers: Mapping[str, str], pools: Pools | None
) -> Answer:
    """The same where the URL is of the NAR as a zstd file, in no coding on top of that."""
    if _has(headers, etag := _etag_in(nar, "zstd")):
        return _not_modified(dict(_FIELDS), etag)
    return await _encoded(nar, method, "zstd", dict(_FIELDS), pools)


async def _plain(
    nar: Nar, method: str, headers: Mapping[str, str], fields: dict[str, str]
) -> Answer:
    fields |= {"ETag": nar.etag, "Accept-Ranges": "bytes"}
    if method == "HEAD":
        # Ranges are for GET alone; what is open would only be closed again.
        fields["Content-Length"] = str(nar.size)
        return Answer(HTTPStatus.OK, "present", fields)
    try:
        part = select(headers.get("Range"), headers.get("If-Range"), nar.etag, nar.size)
    except Unsatisfiable:
        return text(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "invalid",
            f"the range begins behind the end of the NAR's {nar.size} bytes",
            Content_Range=f"bytes */{nar.size}",
            Accept_Ranges="bytes",
            Vary=_VARY,
        )
    return await _opened(nar, part, fields)


async def _opened(nar: Nar, part: Part | None, fields: dict[str, str]) -> Answer:
    offset, length = (0, None) if part is None else (part.offset, part.length)
    if (stream := await nar.open(offset, length)) is None:
        return _gone()
    status, announced = HTTPStatus.OK, nar.size
    if part is not None:
        status, announced = HTTPStatus.PARTIAL_CONTENT, part.length
        last = part.offset + part.length - 1
        fields["Content-Range"] = f"bytes {part.offset}-{last}/{nar.size}"
    fields["Content-Length"] = str(announced)
    return Answer(status, "present", fields, stream=stream, length=announced)


async def _encoded(
    nar: Nar, method: str, coding: str, fields: dict[str, str], pools: Pools | None
) -> Answer:
    """All of it: nobody knows which bytes a part of what is encoded on the way would be."""
    fields["ETag"] = _etag_in(nar, coding)
    if method == "HEAD":
        return Answer(HTTPStatus.OK, "present", fields, length=None)
    if (stream := await nar.open(0, None)) is None:
        return _gone()
    encoded = EncodedStream(stream, nar.size, coding, pools)
    return Answer(HTTPStatus.OK, "present", fields, stream=encoded, length=None)


def _gone() -> Answer:
    return absent("this NAR is not to be had: nobody has its path with that NAR hash any more")


def _has(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client has that form of the NAR already."""
    return (tags := headers.get("If-None-Match")) is not None and matches(tags, etag)


def _not_modified(fields: dict[str, str], etag: str) -> Answer:
    kept = {name: value for name, value in fields.items() if name != "Content-Type"}
    return Answer(HTTPStatus.NOT_MODIFIED, "present", kept | {"ETag": etag})


def _etag_in(nar: Nar, coding: str) -> str:
    return nar.etag if coding == "identity" else f'{nar.etag[:-1]}-{coding}"'


class _DescribedNar:
    """The NAR that a description promises."""

    def __init__(self, path_infos: PathInfoService, description: Description) -> None:
        self._path_infos = path_infos
        self._description = description
        self.size = description.nar_size
        self.etag = _etag(description)

    async def open(self, offset: int, length: int | None) -> ByteStream | None:
        stream = await self._path_infos.open_nar(self._description, offset, length)
        return None if stream is None else await prime(stream)


@dataclass(eq=False, slots=True)
class _RenderedNar:
    """The NAR of a node, rendered from `content`; what is missing is fetched again by its path."""

    path_infos: PathInfoService
    content: Content
    node: Node
    path_hash: bytes | None
    size: int
    etag: str

    async def open(self, offset: int, length: int | None) -> ByteStream | None:
        try:
            return await self._render(offset, length)
        except Incomplete:
            again = await _refetched(self.path_infos, self.node, self.path_hash, self.size)
            return None if again is None else await again.open(offset, length)

    async def _render(self, offset: int, length: int | None) -> ByteStream:
        return await prime(render(self.content, self.node, offset, length))


async def nar_by_hash(path_infos: PathInfoService, wanted: NarByHash) -> Nar | None:
    description = await path_infos.describe(wanted.path_hash, wanted.nar_sha256)
    if description is None or description.nar_sha256 != wanted.nar_sha256:
        return None
    found(description.store_path)
    return _DescribedNar(path_infos, description)


def nar_of_node(
    path_infos: PathInfoService, content: Content, node: Node, nar_sha256: bytes, size: int
) -> Nar:
    """The NAR of a node that is here without any path."""
    etag = f'"{nixbase32.encode(nar_sha256)}"'
    return _RenderedNar(path_infos, content, node, None, size, etag)


async def nar_by_node(
    path_infos: PathInfoService, content: Content, wanted: NarByNode
) -> Nar | None:
    """`None` if the content is not here and its path, if given, has another node or is absent."""
    node, path_hash = wanted.node, wanted.path_hash
    info = await _known(path_infos, node, path_hash)
    if info is not None:
        found(info.store_path)
        # By its path and not from `content` alone: a cache then makes up for what it has lost, also
        # in the middle.
        return _DescribedNar(path_infos, info)
    try:
        size = await nar_size(content, node)
    except Incomplete:
        return await _refetched(path_infos, node, path_hash, wanted.nar_size)
    etag = f'"{Digest.of(encode_node(node)).hex()}"'
    return _RenderedNar(path_infos, content, node, path_hash, size, etag)


async def _known(
    path_infos: PathInfoService, node: Node, path_hash: bytes | None
) -> PathInfo | None:
    """The path info with that node, if it can be had without fetching content."""
    if path_hash is None:
        return None
    try:
        info = await path_infos.describe(path_hash)
    except StoreError as error:
        # The node says everything that the body needs; only the ETag is the poorer for it. The
        # failure itself is counted by the node that failed.
        _log.debug("nar.path_unknown", key=nixbase32.encode(path_hash), reason=str(error))
        return None
    return info if isinstance(info, PathInfo) and info.node == node else None


async def _refetched(
    path_infos: PathInfoService, node: Node, path_hash: bytes | None, size: int
) -> Nar | None:
    """The NAR of that path, its content here again, if it still has that node."""
    if path_hash is None:
        return None
    try:
        info = await path_infos.get(path_hash)
    except StorageFull:
        # What cannot be kept can still be read. Whether it is that node's NAR shows in its size
        # only; the client has the hash, and looks.
        passing = await path_infos.describe(path_hash)
        same = passing is not None and passing.nar_size == size
        return _DescribedNar(path_infos, passing) if passing is not None and same else None
    return _DescribedNar(path_infos, info) if info is not None and info.node == node else None


def _etag(description: Description) -> str:
    return f'"{nixbase32.encode(description.nar_sha256)}"'
