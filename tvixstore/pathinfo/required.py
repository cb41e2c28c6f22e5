"""Takes only what somebody trusted has signed."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvixstore.errors import Untrusted
from tvixstore.nix import KeyRing
from tvixstore.pathinfo.info import PathInfo
from tvixstore.pathinfo.wrapper import PathInfoWrapper


@dataclass(eq=False)
class SignatureRequiredPathInfoService(PathInfoWrapper):
    """A path that none of `keys` signed is not put into `inner`, but `Untrusted`.

    That goes for content-addressed paths too: it is about who may put, and an address tells nothing
    of that.
    """

    keys: KeyRing = field(repr=False)

    async def put(self, info: PathInfo) -> PathInfo:
        signer = self.keys.signer(
            info.store_path, info.nar_sha256, info.nar_size, info.references, info.signatures
        )
        if signer is None:
            names = sorted({signature.name for signature in info.signatures})
            raise Untrusted(
                f"{info.store_path} is not taken: it needs a valid signature by one of "
                f"{', '.join(self.keys.names)} (require_signature), and is signed by "
                f"{', '.join(names) if names else 'nobody'}"
            )
        return await self.inner.put(info)
