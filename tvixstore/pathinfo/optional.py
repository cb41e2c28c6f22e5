"""Marks what a substituter cannot say as skippable, because its owner can do without it.

A Nix client gives up a whole build on a narinfo that stays 503. A community cache that is down
should not do that, so its "unknown" is told apart from that of a cache that matters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tvixstore.errors import CorruptData, Skipped, StoreError
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.carrying import Carrying
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream

Answer = TypeVar("Answer")


@dataclass(eq=False)
class OptionalPathInfoService(PathInfoWrapper):
    """Raises failures as `Skipped` while `breaker`, which guards `inner`, is open.

    That includes the failure that opened it: the first lookup of an outage is skipped like the
    next ones. So is a lie, which opens it when it is told: repeated from memory, it does not.

    With `carrying`, over the same breaker, nobody waits for a probe either: a lookup in whose time
    it falls has it made, and goes without.
    """

    name: str
    breaker: Breaker
    carrying: Carrying | None = field(default=None, repr=False)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        def ask() -> Coroutine[Any, Any, Description | None]:
            return self.inner.describe(path_hash, nar_sha256)

        if self.carrying is not None and self.carrying.begin_probe(ask):
            reason = f"left alone until it has answered a probe: {self.breaker.reason}"
            raise Skipped(reason, [self.name], answered=False)
        return await self._skippable(ask())

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return await self._skippable(self.inner.get(path_hash))

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        return await self._skippable(self.inner.open_nar(description, offset, length, into))

    async def _skippable(self, answer: Awaitable[Answer]) -> Answer:
        try:
            return await answer
        except StoreError as error:
            if not self.breaker.is_open and not isinstance(error, CorruptData):
                raise
            note("optional.skipped", "declared optional: what it cannot say counts as absent")
            raise Skipped(str(error), [self.name], answered=False) from error
