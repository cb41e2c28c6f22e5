"""Proxy, between daemons of ours: descriptions without downloads, NARs as they come in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tvixstore.explain import found
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import Description, PathInfoService
from tvixstore.rpc.messages import Describe, OpenNar
from tvixstore.rpc.server.blobs import pieces
from tvixstore.rpc.server.refusals import absent


@dataclass(eq=False, slots=True)
class ProxyHandlers:
    path_infos: PathInfoService

    async def describe(self, request: Describe) -> Description:
        known = await self.path_infos.describe(request.path_hash, request.nar_sha256)
        if known is None:
            raise absent(f"path {nixbase32.encode(request.path_hash)}")
        found(known.store_path)
        return known

    async def open_nar(self, request: OpenNar) -> AsyncGenerator[bytes, None]:
        nar = request.nar
        known = await self.path_infos.describe(request.path_hash, nar.sha256)
        stream = None
        if known is not None and (known.nar_sha256, known.nar_size) == (nar.sha256, nar.size):
            found(known.store_path)
            stream = await self.path_infos.open_nar(known, request.offset, request.length)
        if stream is None:
            raise absent(f"NAR {nar.sha256.hex()} of path {nixbase32.encode(request.path_hash)}")
        async with aclosing(pieces(stream)) as parts:
            async for part in parts:
                yield part
