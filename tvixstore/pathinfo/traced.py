"""Tells of a node that is not counted, where a request is traced."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.tracing import Label, begin, below, over, traced
from tvixstore.streams import ByteStream


@dataclass(eq=False)
class TracedPathInfoService(PathInfoWrapper):
    """Each call of `inner` is a step of the node that `label` names."""

    label: Label = field(repr=False)

    def __repr__(self) -> str:
        return repr(self.inner)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        # As `traced`, without a coroutine more.
        if (step := below(self.label, "describe")) is None:
            return await self.inner.describe(path_hash, nar_sha256)
        token = begin(step)
        try:
            result = await self.inner.describe(path_hash, nar_sha256)
        except BaseException as error:
            step.fail(error)
            raise
        finally:
            over(token)
        step.end("absent" if result is None else "present")
        return result

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return await traced(self.label, "get", self.inner.get(path_hash))

    async def put(self, info: PathInfo) -> PathInfo:
        return await traced(self.label, "put", self.inner.put(info))

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        opening = self.inner.open_nar(description, offset, length, into)
        return await traced(self.label, "open_nar", opening)
