"""Signs what goes out, so that whoever trusts our key alone can use all of it.

Nothing needs to be stored for it: the first narinfo of a path carries the signature while its
content is still upstream, and so does every later one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from tvixstore.errors import Untrusted
from tvixstore.nix import KeyRing
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.nix.trust import judge
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.signing import Described, Signer
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.lru import Lru
from tvixstore.streams import ByteStream

# Signed descriptions are kept, so that each is signed once: so many references of theirs, the rest
# of one taken for as many as below. It is some 30 MB, and as many paths as narinfos are kept of.
_REFERENCES = 200_000
_REST = 4


@dataclass(eq=False)
class CountersigningPathInfoService(PathInfoWrapper):
    """What `inner` hands out and what is put into it carries the signature of `signer` too.

    `trusted` are the keys that what comes from upstreams was verified with. The same object goes
    out for as long as `inner` hands out the same one.
    """

    signer: Signer
    trusted: KeyRing = field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        # What inner said of a path, and what goes out in its place.
        self._known: Lru[bytes, tuple[Description, Description]] = Lru(_REFERENCES)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        description = await self.inner.describe(path_hash, nar_sha256)
        return None if description is None else self._signed(description)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        info = await self.inner.get(path_hash)
        return None if info is None else self._signed(info)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        known = self._known.get(description.store_path.hash)
        if known is not None and known[1] == description:
            # Inner may keep what it is asked for: it gets back what it said itself.
            description = known[0]
        return await self.inner.open_nar(description, offset, length, into)

    async def put(self, info: PathInfo) -> PathInfo:
        return self._signed(await self.inner.put(self.signer.signed(info)))

    async def list(self) -> AsyncGenerator[PathInfo, None]:
        async with aclosing(self.inner.list()) as infos:
            async for info in infos:
                # Not remembered: a list passes by, and would push out what is asked for.
                yield self.signer.signed(info)

    def _signed(self, description: Described) -> Described:
        key = description.store_path.hash
        known = self._known.get(key)
        # An equal one costs less to compare than to sign.
        if known is not None and (known[0] is description or known[0] == description):
            signed = known[1]
            assert isinstance(signed, type(description)), "signing makes no other type"
            return signed
        made = self.signer.signed(description) if self._is_verified(description) else description
        self._known.put(key, (description, made), _REST + len(description.references))
        return made

    def _is_verified(self, description: Description) -> bool:
        """Whether its NAR hash is settled, and not to be proven by the content that is to come.

        A path that is trusted for its content address alone may be described with any NAR hash by
        whoever lies, until its content was looked at. It needs no signature before: clients trust
        the address as well.
        """
        if isinstance(description, PathInfo):
            return True
        try:
            return judge(description, self.trusted) is None
        except Untrusted:
            # Nobody verified it, because whoever wrote the composition believes its source.
            return True
