"""Asks again when the answer could not be had."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.retry import Retry
from tvixstore.policy.tracing import note


@dataclass(eq=False)
class RetryPathInfoService(PathInfoWrapper):
    """Retries `describe`, and `put`, which merges into what it put the first time.

    Not `get` and `open_nar`: a substituter takes up a broken download itself, where it broke, and
    repeating that here would keep the next member waiting for the product of both.
    """

    retry: Retry = field(default_factory=Retry)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self.retry.run(lambda: self.inner.describe(path_hash, nar_sha256), note)

    async def put(self, info: PathInfo) -> PathInfo:
        return await self.retry.run(lambda: self.inner.put(info), note)
