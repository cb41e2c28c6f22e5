"""DirectoryService: one Directory, or the closure of one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tvixstore.activity import Activity
from tvixstore.castore import Digest, Directory
from tvixstore.directory import DirectoryService
from tvixstore.rpc.messages import GetDirectory
from tvixstore.rpc.server.refusals import absent
from tvixstore.rpc.server.uploads import Sending


@dataclass(eq=False, slots=True)
class DirectoryHandlers:
    directories: DirectoryService
    activity: Activity

    async def get(self, request: GetDirectory) -> AsyncGenerator[Directory, None]:
        if request.recursive:
            # An absent root is an empty stream: tvix's client takes NOT_FOUND for an error here.
            async with aclosing(self.directories.get_closure(request.digest)) as closure:
                async for directory in closure:
                    yield directory
            return
        if (found := await self.directories.get(request.digest)) is None:
            raise absent(f"Directory {request.digest}")
        yield found

    async def put(self, directories: AsyncGenerator[Directory, None]) -> Digest:
        with Sending(self.activity, "Directories") as sending:
            async with await self.directories.put_closure() as putter:
                async for directory in directories:
                    sending.received += len(directory.wire)
                    await putter.put(directory)
                return await putter.close()
