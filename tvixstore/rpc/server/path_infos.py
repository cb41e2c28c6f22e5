"""PathInfoService: what is known of store paths, held against their content before it is kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from grpclib.const import Status

from tvixstore.castore import Node
from tvixstore.errors import Incomplete, InvalidData, Untrusted
from tvixstore.explain import found
from tvixstore.nar import NarIdentities, NarIdentity
from tvixstore.nix import nixbase32
from tvixstore.pathinfo import PathInfo, PathInfoService
from tvixstore.rpc.server.refusals import Refusal, absent
from tvixstore.rpc.server.whole import look_for_all
from tvixstore.tree import Content


@dataclass(eq=False, slots=True)
class PathInfoHandlers:
    path_infos: PathInfoService
    content: Content
    nars: NarIdentities

    async def get(self, path_hash: bytes) -> PathInfo:
        if (info := await self.path_infos.get(path_hash)) is None:
            raise absent(f"path {nixbase32.encode(path_hash)}")
        found(info.store_path)
        return info

    async def put(self, info: PathInfo) -> PathInfo:
        # What is found here is still here when the path info refers to it.
        async with self.content.keeping(info.node):
            return await self._put(info)

    async def _put(self, info: PathInfo) -> PathInfo:
        try:
            if await self.nars.known(info.node) is not None:
                # Nothing is read for what is remembered, and since then anything may have gone.
                await look_for_all(self.content, info.node)
            nar = await self.nars.of(info.node)
        except Incomplete as error:
            raise Refusal(
                Status.FAILED_PRECONDITION,
                f"{info.store_path}: its content is not here, put it first, or again: {error}",
            ) from error
        if nar != NarIdentity(info.nar_size, info.nar_sha256):
            raise InvalidData(
                f"narinfo.nar_sha256 and narinfo.nar_size of {info.store_path} are "
                f"{info.nar_sha256.hex()} and {info.nar_size}, "
                f"but its node has a NAR of {nar.sha256.hex()} and {nar.size} bytes"
            )
        try:
            return await self.path_infos.put(info)
        except Untrusted as error:
            # Of what is read that says something else: there it is the store that is not right.
            raise Refusal(Status.PERMISSION_DENIED, str(error)) from error

    async def calculate_nar(self, node: Node) -> NarIdentity:
        try:
            return await self.nars.of(node)
        except Incomplete as error:
            raise Refusal(Status.NOT_FOUND, str(error)) from error

    async def list(self, request: None) -> AsyncGenerator[PathInfo, None]:
        async with aclosing(self.path_infos.list()) as infos:
            async for info in infos:
                yield info
