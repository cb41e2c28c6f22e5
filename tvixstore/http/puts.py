"""What is uploaded: nix-cache-info, NARs, narinfos and listings.

Each is answered when it is durable. What a body says is believed only as far as it is known here.
"""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING

from tvixstore.errors import InvalidData
from tvixstore.http.answers import Answer, text
from tvixstore.nix import STORE_DIR
from tvixstore.nix.json_text import check_nesting
from tvixstore.pathinfo.accepting import accept, read_narinfo
from tvixstore.pathinfo.nix.upstream import MAX_NARINFO_BYTES
from tvixstore.pathinfo.upload_rows import Upload
from tvixstore.pathinfo.uploads import MAX_NAME, hash_in

if TYPE_CHECKING:
    from tvixstore.http.call import Call

_MAX_CACHE_INFO = 16 << 10
_MAX_LISTING = 16 << 20
# To read a longer one takes more than a millisecond.
_READ_IN_LOOP = 8 << 10


def stored(what: str) -> Answer:
    """What was sent is here, and will be after a power cut."""
    return text(HTTPStatus.CREATED, "stored", what)


async def put_cache_info(call: Call, wanted: None) -> Answer:
    """Accepted from a client that means our store; what else it says is our own to say."""
    body = await call.incoming.read(_MAX_CACHE_INFO, call.inbox.pools)
    for line in body.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "StoreDir" and value.strip().rstrip("/") != STORE_DIR:
            raise InvalidData(f"this cache is of {STORE_DIR}, not of {value.strip()[:200]!r}")
    return stored("this cache is of that store")


async def put_nar(call: Call, name: str) -> Answer:
    """Ingested as it comes; its row names the file, its node and its NAR for a day."""
    if len(name.encode()) > MAX_NAME:
        raise InvalidData(f"the name of a NAR has at most {MAX_NAME} bytes")
    incoming, inbox = call.incoming, call.inbox
    encodings = incoming.encodings
    # What it is made of stays until its row refers to it.
    with inbox.receiver.content.session():
        async with aclosing(incoming.pieces()) as pieces:
            upload = await inbox.receiver.receive(pieces, name, encodings, incoming.length)
        named = hash_in(name)
        if named is not None and named != upload.file_sha256:
            raise InvalidData(
                f"{name} is called by another hash than its own, sha256:{upload.file_sha256.hex()}"
            )
        await inbox.uploads.add(name, upload)
    return stored(f"a NAR of {upload.nar_size} bytes; its narinfo is expected within a day")


async def put_narinfo(call: Call, path_hash: bytes) -> Answer:
    inbox, path_infos = call.inbox, call.front.path_infos
    body = await call.incoming.read(MAX_NARINFO_BYTES, inbox.pools)
    try:
        written = body.decode()
    except UnicodeDecodeError:
        raise InvalidData("the narinfo is not UTF-8") from None
    if len(written) <= _READ_IN_LOOP:
        narinfo = read_narinfo(path_hash, written)
    else:
        narinfo = await inbox.pools.cpu.run(read_narinfo, path_hash, written)
    content = inbox.receiver.content
    # What it refers to stays until it does.
    with content.session():
        info, file = await accept(narinfo, path_infos, inbox.uploads, content)
        if isinstance(file, Upload) and not await content.has(info.node):
            await inbox.uploads.forget(file)
            raise InvalidData("the content of its NAR is not here any more: upload that again")
        try:
            await path_infos.put(info)
        except InvalidData as error:
            # It was valid by itself: it does not go with what is here.
            return text(HTTPStatus.CONFLICT, "invalid", str(error))
    if file is not None:
        await inbox.uploads.learn(file, path_hash)
    return stored(str(info.store_path))


async def put_listing(call: Call, path_hash: bytes) -> Answer:
    """Read and dropped: listings are made of the content, which may come later."""
    body = await call.incoming.read(_MAX_LISTING, call.inbox.pools)
    await call.inbox.pools.cpu.run(check_nesting, body)
    return stored("listings are made here from the content")
