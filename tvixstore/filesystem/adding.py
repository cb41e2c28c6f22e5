"""NARs from files, as Nix and binary caches have them, into a store."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from pathlib import Path

from tvixstore.castore import SizeRule
from tvixstore.errors import CorruptData, InvalidData
from tvixstore.nar import NarIdentity, render
from tvixstore.nix import (
    ContentAddress,
    NarInfo,
    NixHash,
    Signature,
    StorePath,
    check_new_name,
)
from tvixstore.pathinfo import PathInfo, PathInfoService
from tvixstore.pathinfo.nix.trust import prove_content_address
from tvixstore.pathinfo.receiving import Receiver
from tvixstore.pathinfo.upload_rows import Upload
from tvixstore.pools import Pools
from tvixstore.transfer.trust import Trust, prove
from tvixstore.tree import Content


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What is said of a NAR that is to be added; the NAR is held against it.

    `path` is the store path that it is of. Without one it is addressed by its content, under
    `name`.
    """

    path: StorePath | None = None
    name: str | None = None
    references: tuple[StorePath, ...] = ()
    deriver: StorePath | None = None
    signatures: tuple[Signature, ...] = ()
    ca: ContentAddress | None = None
    nar: NarIdentity | None = None
    # Of the file, if that is said.
    compression: str | None = None

    def __post_init__(self) -> None:
        if self.path is None:
            if self.name is None:
                raise InvalidData("a NAR does not say what it is of: name a store path, or a name")
            check_new_name(self.name)

    @classmethod
    def of(cls, narinfo: NarInfo) -> Claims:
        return cls(
            path=narinfo.store_path,
            references=narinfo.references,
            deriver=narinfo.deriver,
            signatures=narinfo.signatures,
            ca=narinfo.ca,
            nar=NarIdentity(narinfo.nar_size, narinfo.nar_sha256),
            compression=narinfo.compression,
        )


@dataclass(eq=False)
class NarAdder:
    """Adds NARs to `content` and `path_infos`, by way of the folder `spool` if they are huge."""

    content: Content
    path_infos: PathInfoService
    pools: Pools
    spool: Path
    sizes: SizeRule = SizeRule.DOCUMENTED
    # Who is believed; without keys, whoever calls `add` is.
    trust: Trust = field(default_factory=Trust)
    _receiver: Receiver = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._receiver = Receiver(self.content, self.pools, self.spool, self.sizes)

    async def add(self, source: AsyncIterable[bytes], name: str, claims: Claims) -> PathInfo:
        """Stores the NAR in the file called `name` that `source` gives, compressed or not.

        Raises `InvalidData` where it is none, or not what is claimed of it, and `Untrusted` where
        nobody who is trusted claims that. The caller closes `source`.
        """
        with self.content.session():
            upload = await self._receiver.receive(source, _file_name(name, claims))
            _check(NarIdentity(upload.nar_size, upload.nar_sha256), name, claims)
            info = _info(upload, claims)
            self.trust.judge(info)
            if info.ca is not None:
                await self._prove(info, info.ca)
            return await self.path_infos.put(info)

    async def _prove(self, info: PathInfo, address: ContentAddress) -> None:
        """A signature vouches for the NAR, and nobody for its address but the content."""
        try:
            proof = prove_content_address(info, address)
            if proof is not None:
                await prove(proof, render(self.content, info.node), self.pools)
        except CorruptData as error:
            raise InvalidData(str(error)) from error


def _file_name(name: str, claims: Claims) -> str:
    """By its end a brotli stream is known, which has nothing else to know it by."""
    return f"{name.removesuffix('.br')}.br" if claims.compression == "br" else name


def _check(nar: NarIdentity, name: str, claims: Claims) -> None:
    if claims.nar in (None, nar):
        return
    assert claims.nar is not None
    raise InvalidData(
        f"{name} has a NAR of {nar.size} bytes with {NixHash('sha256', nar.sha256)}, "
        f"not of {claims.nar.size} with {NixHash('sha256', claims.nar.sha256)}"
    )


def _info(upload: Upload, claims: Claims) -> PathInfo:
    path, ca = claims.path, claims.ca
    if path is None:
        assert claims.name is not None
        ca = ContentAddress("recursive", NixHash("sha256", upload.nar_sha256))
        path = ca.store_path(claims.name, claims.references)
    return PathInfo(
        store_path=path,
        nar_sha256=upload.nar_sha256,
        nar_size=upload.nar_size,
        references=claims.references,
        signatures=claims.signatures,
        deriver=claims.deriver,
        ca=ca,
        node=upload.node,
    )
