"""A node type of somebody else's: counts the blobs that are written through it, up to a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tvixstore.blob import BlobWriter
from tvixstore.blob.wrapper import BlobWrapper
from tvixstore.castore import Digest
from tvixstore.compose import Node, NodeType
from tvixstore.errors import StorageFull

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


class CountingNode(Node):
    """`type = "counting"`: its keys."""

    references: ClassVar[tuple[str, ...]] = ("inner",)

    inner: str
    most: int = 1000


@dataclass(eq=False)
class CountingBlobService(BlobWrapper):
    """Passes everything on, and no more than `most` blobs."""

    most: int
    written: int = 0

    async def open_write(self, boundaries: Sequence[int] | None = None) -> BlobWriter:
        self._count(1)
        return await super().open_write(boundaries)

    async def put(self, data: bytes) -> Digest:
        self._count(1)
        return await super().put(data)

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        self._count(len(blobs))
        return await super().put_many(blobs)

    def _count(self, blobs: int) -> None:
        if self.written + blobs > self.most:
            raise StorageFull(f"{self.written} of {self.most} blobs were written")
        self.written += blobs


def make(builder: Builder, name: str, node: CountingNode) -> CountingBlobService:
    return CountingBlobService(builder.blobs(node.inner), node.most)


COUNTING = NodeType(model=CountingNode, blobs=make)
