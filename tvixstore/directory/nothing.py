"""Has nothing, and takes nothing: in place of services elsewhere, while there is no elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from tvixstore.castore import Digest, Directory
from tvixstore.directory.closure import walk_closure
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.errors import ReadOnly


class NoDirectories(DirectoryService):
    def __repr__(self) -> str:
        return "nothing"

    async def get(self, digest: Digest) -> Directory | None:
        return None

    async def put(self, directory: Directory) -> Digest:
        raise _refusal()

    async def put_many(self, directories: Sequence[Directory]) -> None:
        raise _refusal()

    def get_closure(self, root: Digest) -> AsyncGenerator[Directory, None]:
        return walk_closure(self.get_many, root)

    async def put_closure(self) -> DirectoryPutter:
        raise _refusal()


def _refusal() -> ReadOnly:
    return ReadOnly("offline: that is elsewhere, and takes no writes now")
