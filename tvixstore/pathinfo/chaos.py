"""Lets things go wrong on purpose, for drills and tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.chaos import Chaos, ChaoticStream, Kind, Outcome
from tvixstore.policy.tracing import note
from tvixstore.streams import ByteStream

Said = TypeVar("Said", bound=Description)


@dataclass(eq=False)
class ChaosPathInfoService(PathInfoWrapper):
    """What `chaos` says becomes of each call of `inner`. Corrupt is another NAR hash."""

    chaos: Chaos

    async def get(self, path_hash: bytes) -> PathInfo | None:
        outcome = await self._meet("absent", "corrupt")
        return None if outcome.kind == "absent" else _said(await self.inner.get(path_hash), outcome)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        outcome = await self._meet("absent", "corrupt")
        if outcome.kind == "absent":
            return None
        return _said(await self.inner.describe(path_hash, nar_sha256), outcome)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        outcome = await self._meet("absent", "truncate", "corrupt", "stall", "disconnect")
        if outcome.kind == "absent":
            return None
        stream = await self.inner.open_nar(description, offset, length, into)
        return None if stream is None else ChaoticStream(stream, outcome)

    async def _meet(self, *able: Kind) -> Outcome:
        outcome = await self.chaos.meet(*able)
        if outcome.kind != "ok":
            note("chaos", f"on purpose: {outcome.kind}")
        return outcome

    async def put(self, info: PathInfo) -> PathInfo:
        return await self.chaos.write(lambda: self.inner.put(info))

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        await self.chaos.meet()
        async with aclosing(self.inner.list()) as infos:
            async for info in infos:
                yield info


def _said(said: Said | None, outcome: Outcome) -> Said | None:
    if said is None or outcome.kind != "corrupt":
        return said
    wrong = bytes([said.nar_sha256[0] ^ 1]) + said.nar_sha256[1:]
    return replace(said, nar_sha256=wrong)
