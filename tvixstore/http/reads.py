"""What a binary cache is read by: narinfos, listings, NARs under their names here."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus

from tvixstore.errors import Incomplete, Skipped, StorageFull, Unsupported
from tvixstore.explain import found
from tvixstore.http import nars
from tvixstore.http.answers import Answer, absent, invalid, skipped
from tvixstore.http.call import Call
from tvixstore.http.nar_files import nar_file
from tvixstore.http.urls import NarByHash, NarByNode
from tvixstore.nar import listing, listing_of_nar
from tvixstore.nix import STORE_DIR, nixbase32


async def cache_info(call: Call, wanted: None) -> Answer:
    body = f"StoreDir: {STORE_DIR}\nWantMassQuery: 1\nPriority: {call.front.priority}\n".encode()
    return Answer(HTTPStatus.OK, "present", {"Content-Type": "text/x-nix-cache-info"}, body)


async def narinfo(call: Call, path_hash: bytes) -> Answer:
    try:
        description = await call.front.path_infos.describe(path_hash)
    except Skipped as error:
        if not error.answered:
            raise
        return skipped(error)
    if description is None:
        return _no_path(path_hash)
    found(description.store_path)
    headers = {"Content-Type": "text/x-nix-narinfo"}
    return Answer(HTTPStatus.OK, "present", headers, call.texts.of(description))


async def ls(call: Call, path_hash: bytes) -> Answer:
    try:
        info = await call.front.path_infos.get(path_hash)
        if info is None:
            return _no_path(path_hash)
        found(info.store_path)
        return await _listed(listing(call.front.content, info.node))
    except (StorageFull, Incomplete):
        # What cannot be kept can still be read: the listing is made as the NAR goes by.
        return await _ls_in_passing(call, path_hash)


async def _ls_in_passing(call: Call, path_hash: bytes) -> Answer:
    path_infos = call.front.path_infos
    description = await path_infos.describe(path_hash)
    if description is None or (stream := await path_infos.open_nar(description)) is None:
        return _no_path(path_hash)
    async with stream:
        return await _listed(listing_of_nar(stream))


async def _listed(making: Awaitable[bytes]) -> Answer:
    try:
        body = await making
    except Unsupported as error:
        # Names that are not UTF-8: for ever, so it is no failure.
        return absent(str(error))
    return Answer(HTTPStatus.OK, "present", {"Content-Type": "application/json"}, body)


async def nar_by_hash(call: Call, wanted: NarByHash | str) -> Answer:
    if isinstance(wanted, str):
        return await nar_file(call, wanted)
    nar = await nars.nar_by_hash(call.front.path_infos, wanted)
    if nar is None:
        return absent(
            f"nobody has {nixbase32.encode(wanted.path_hash)} with the NAR hash "
            f"{nixbase32.encode(wanted.nar_sha256)}"
        )
    return await _nar(call, nar, zstd=wanted.zstd)


async def nar_by_node(call: Call, wanted: NarByNode) -> Answer:
    nar = await nars.nar_by_node(call.front.path_infos, call.front.content, wanted)
    if nar is None:
        return absent("the content of this node is not here, nor to be had by its path")
    if nar.size != wanted.nar_size:
        return invalid(f"narsize is {wanted.nar_size}, but the NAR of that node has {nar.size}")
    return await _nar(call, nar, zstd=wanted.zstd)


async def _nar(call: Call, nar: nars.Nar, *, zstd: bool) -> Answer:
    answer = nars.compressed if zstd else nars.answer
    return await answer(nar, call.method, call.headers, call.front.pools)


def _no_path(path_hash: bytes) -> Answer:
    return absent(f"nobody has {nixbase32.encode(path_hash)}")
