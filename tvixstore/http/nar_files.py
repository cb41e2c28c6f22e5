"""NARs by the names of the files that they were uploaded in.

Our own narinfos name other URLs. But a client remembers the narinfo that it uploaded for a month,
with its file's name and compression, and an index of debug information names files as well. So the
NAR is compressed again: to other bytes than were uploaded, and to the same NAR.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from tvixstore.compression import COMPRESSORS, Compressor
from tvixstore.errors import CorruptData
from tvixstore.http import nars
from tvixstore.http.answers import Answer, absent
from tvixstore.http.urls import NarByHash
from tvixstore.pathinfo.upload_rows import NarFile, Upload
from tvixstore.streams import ByteStream

if TYPE_CHECKING:
    from tvixstore.http.front import Inbox
    from tvixstore.http.routes import Call
    from tvixstore.pools import Pools

_NAR = "application/x-nix-nar"
# Bytes of a NAR that are compressed in one hop to the CPU pool.
_GATHERED = 512 << 10


async def nar_file(call: Call, name: str) -> Answer:
    """The NAR that was uploaded under `name`; of HEAD, whether it need not be uploaded again."""
    if (inbox := call.front.inbox) is not None:
        found = await _find(call, inbox, name)
        if found is not None:
            return await _answer(call, inbox, *found)
    if (linked := await _linked(call, name)) is not None:
        return linked
    return absent("no NAR was uploaded under this name, and our own narinfos name others")


async def _find(call: Call, inbox: Inbox, name: str) -> tuple[NarFile, nars.Nar] | None:
    find = inbox.uploads.may_skip if call.method == "HEAD" else inbox.uploads.find
    if (upload := await find(name)) is not None:
        return upload, _nar_of(call, upload)
    if (known := await inbox.uploads.known(name)) is not None:
        nar = await nars.nar_by_hash(
            call.front.path_infos, NarByHash(known.path_hash, known.nar_sha256)
        )
        if nar is not None:
            return known, nar
    return None


def _nar_of(call: Call, upload: Upload) -> nars.Nar:
    return nars.nar_of_node(
        call.front.path_infos,
        call.front.content,
        upload.node,
        upload.nar_sha256,
        upload.nar_size,
    )


async def _answer(call: Call, inbox: Inbox, file: NarFile, nar: nars.Nar) -> Answer:
    if file.compression == "none":
        return await nars.answer(nar, call.method, call.headers, inbox.pools)
    fields = {"Content-Type": _NAR, "Cache-Control": "no-store"}
    if call.method == "HEAD":
        return Answer(HTTPStatus.OK, "present", fields, length=None)
    if (stream := await nar.open(0, None)) is None:
        return absent("this NAR is not to be had any more")
    compressed = _Compressed(stream, nar.size, COMPRESSORS[file.compression], inbox.pools)
    return Answer(HTTPStatus.OK, "present", fields, stream=compressed, length=None)


async def _linked(call: Call, name: str) -> Answer | None:
    """A substituter's file, if debug information that came from there is in it."""
    extras = call.front.extras
    if extras is None or (stream := await extras.open_linked(name)) is None:
        return None
    if call.method == "HEAD":
        await stream.aclose()
        return Answer(HTTPStatus.OK, "present", {"Content-Type": _NAR}, length=None)
    # No Content-Length: what is there may be encoded for the transfer.
    return Answer(HTTPStatus.OK, "present", {"Content-Type": _NAR}, stream=stream, length=None)


class _Compressed(ByteStream):
    """`stream`, a NAR of `size` bytes, compressed again."""

    def __init__(
        self, stream: ByteStream, size: int, compressor: Callable[[], Compressor], pools: Pools
    ) -> None:
        self._stream = stream
        self._left = size
        self._compressor = compressor()
        self._pools = pools
        self._over = False

    async def __anext__(self) -> bytes:
        while not self._over:
            parts = await self._gather()
            made = await self._pools.cpu.run(self._compress, parts)
            if made:
                return made
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._over = True
        await self._stream.aclose()

    async def _gather(self) -> list[bytes]:
        parts: list[bytes] = []
        amount = 0
        while amount < _GATHERED:
            try:
                part = await self._stream.__anext__()
            except StopAsyncIteration:
                self._over = True
                break
            parts.append(part)
            amount += len(part)
        self._left -= amount
        if self._left < 0 or (self._over and self._left):
            raise CorruptData("the NAR does not have the size that it is known to have")
        return parts

    def _compress(self, parts: list[bytes]) -> bytes:
        """In a thread."""
        made = [self._compressor.compress(part) for part in parts]
        if self._over:
            made.append(self._compressor.flush())
        return b"".join(made)
