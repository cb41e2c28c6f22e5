"""Takes no writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvixstore.castore import Digest, Directory
from tvixstore.directory.service import DirectoryPutter
from tvixstore.directory.wrapper import DirectoryWrapper
from tvixstore.errors import ReadOnly


@dataclass(eq=False)
class ReadOnlyDirectoryService(DirectoryWrapper):
    """Reads from `inner`; whoever writes gets `ReadOnly`, before anything was taken."""

    async def put(self, directory: Directory) -> Digest:
        raise _refusal()

    async def put_many(self, directories: Sequence[Directory]) -> None:
        raise _refusal()

    async def put_closure(self) -> DirectoryPutter:
        raise _refusal()


def _refusal() -> ReadOnly:
    return ReadOnly("this directory service was declared readonly")
