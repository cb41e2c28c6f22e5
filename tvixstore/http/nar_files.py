"""NARs by the names of the files that they were uploaded in.

Our own narinfos name other URLs. But a client remembers the narinfo that it uploaded for a month,
with its file's name and compression, and an index of debug information names files as well. So the
NAR is compressed again: to other bytes than were uploaded, and to the same NAR.
"""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from tvixstore.http import nars
from tvixstore.http.answers import Answer, absent
from tvixstore.http.encoded import EncodedStream
from tvixstore.http.urls import NarByHash
from tvixstore.pathinfo.upload_rows import NarFile, Upload
from tvixstore.pathinfo.uploads import hash_in

if TYPE_CHECKING:
    from tvixstore.http.call import Call
    from tvixstore.http.front import Inbox

_NAR = "application/x-nix-nar"


async def nar_file(call: Call, name: str) -> Answer:
    """The NAR that was uploaded under `name`; of HEAD, whether it need not be uploaded again."""
    if (inbox := call.front.inbox) is not None:
        found = await _find(call, inbox, name)
        if found is not None:
            answer = await _answer(call, inbox, *found)
            return answer if hash_in(name) is not None else _revalidated(answer)
    if (linked := await _linked(call, name)) is not None:
        return linked
    return absent("no NAR was uploaded under this name, and our own narinfos name others")


def _revalidated(answer: Answer) -> Answer:
    """Under a name that is no hash there may be another NAR tomorrow."""
    if "ETag" not in answer.headers:
        return answer
    return replace(answer, headers={**answer.headers, "Cache-Control": "no-cache"})


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
    compressed = EncodedStream(stream, nar.size, file.compression, inbox.pools)
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
