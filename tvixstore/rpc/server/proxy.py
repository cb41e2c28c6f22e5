"""Proxy, between daemons of ours: descriptions without downloads, NARs as they come in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tvixstore.nix import nixbase32
from tvixstore.pathinfo import Description, PathInfoService
from tvixstore.rpc.messages import Describe, OpenNar
from tvixstore.rpc.server.blobs import pieces
from tvixstore.rpc.server.refusals import absent


@dataclass(eq=False, slots=True)
class ProxyHandlers:
    path_infos: PathInfoService

    async def describe(self, request: Describe) -> Description:
        found = await self.path_infos.describe(request.path_hash, request.nar_sha256)
        if found is None:
            raise absent(f"path {nixbase32.encode(request.path_hash)}")
        return found

    async def open_nar(self, request: OpenNar) -> AsyncGenerator[bytes, None]:
        nar = request.nar
        found = await self.path_infos.describe(request.path_hash, nar.sha256)
        stream = None
        if found is not None and (found.nar_sha256, found.nar_size) == (nar.sha256, nar.size):
            stream = await self.path_infos.open_nar(found, request.offset, request.length)
        if stream is None:
            raise absent(f"NAR {nar.sha256.hex()} of path {nixbase32.encode(request.path_hash)}")
        async with aclosing(pieces(stream)) as parts:
            async for part in parts:
                yield part
