"""Where paths are copied to: a store, whose content goes first, or a binary cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tvixstore.errors import CorruptData, Unavailable
from tvixstore.nar import NarIdentities, NarIdentity, render
from tvixstore.pathinfo import Description, PathInfo, PathInfoService
from tvixstore.pools import Pools
from tvixstore.transfer.content import ContentCopier
from tvixstore.transfer.trust import Trust, prove
from tvixstore.transfer.watcher import Meter
from tvixstore.tree import Content

Publish = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied from. `content` is where the roots of its path infos are: for a binary cache,
    the target's own, into which it is read."""

    name: str
    path_infos: PathInfoService
    content: Content


class Target(ABC):
    """What is copied to."""

    name: str

    @abstractmethod
    async def find(self, path_hash: bytes) -> Description | None:
        """What is here of that path; `None` if it, or its content, is not."""

    @abstractmethod
    async def bring(self, description: Description, source: Source, meter: Meter) -> Publish:
        """Has the content of a path come here, checked against `description`.

        Nobody sees the path before what this returns is called, which is quick.
        """


@dataclass(eq=False)
class StoreTarget(Target):
    """A composition, or a daemon."""

    name: str
    path_infos: PathInfoService
    content: Content
    pools: Pools
    trust: Trust = field(default_factory=Trust)
    # What checks here that roots are of the NARs that they are said to be of; `None` leaves it to
    # whoever is behind `path_infos`, as daemons do it.
    nars: NarIdentities | None = None
    _copiers: dict[Content, ContentCopier] = field(default_factory=dict, init=False)

    async def find(self, path_hash: bytes) -> Description | None:
        try:
            found = await self.path_infos.describe(path_hash)
        except Unavailable:
            # Of what it has, or of what is behind it: that need not be up for something to be put.
            # Should it be down itself, to copy is what will fail.
            return None
        # Without its root it is only known to be somewhere behind.
        return found if isinstance(found, PathInfo) else None

    async def bring(self, description: Description, source: Source, meter: Meter) -> Publish:
        proof = self.trust.judge(description)
        info = await source.path_infos.get(description.store_path.hash)
        if info is None or not info.same_nar(description):
            raise Unavailable(f"{description.store_path} in {source.name} has just changed: again")
        if source.content is self.content:
            # It was read into here, and verified on the way.
            meter.sent(info.nar_size)
        else:
            await self._copier(source).copy(info.node, meter)
            await self._check(info)
        if proof is not None:
            await prove(proof, render(self.content, info.node), self.pools)

        async def publish() -> None:
            await self.path_infos.put(info)

        return publish

    def _copier(self, source: Source) -> ContentCopier:
        return self._copiers.setdefault(source.content, ContentCopier(source.content, self.content))

    async def _check(self, info: PathInfo) -> None:
        if self.nars is None:
            return
        identity = await self.nars.of(info.node)
        if identity != NarIdentity(info.nar_size, info.nar_sha256):
            raise CorruptData(
                f"{info.store_path}: what came has a NAR of {identity.size} bytes with sha256 "
                f"{identity.sha256.hex()}, not of {info.nar_size} with {info.nar_sha256.hex()}"
            )
