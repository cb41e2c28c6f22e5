"""A binary cache as what is copied to: for each path a NAR, and then the narinfo that names it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvixstore.errors import CorruptData, InvalidData, Unavailable
from tvixstore.nix import NarInfo, nixbase32
from tvixstore.pathinfo import Description
from tvixstore.pools import Pools
from tvixstore.transfer.binary_cache import BinaryCache
from tvixstore.transfer.packing import Compression, pack
from tvixstore.transfer.target import Publish, Source, Target
from tvixstore.transfer.trust import Trust, narinfo_of
from tvixstore.transfer.watcher import Meter


@dataclass(eq=False)
class CacheTarget(Target):
    """`cache`, which gets NARs that are compressed by `compression`."""

    name: str
    cache: BinaryCache
    pools: Pools
    compression: Compression = "zstd"
    trust: Trust = field(default_factory=Trust)

    async def find(self, path_hash: bytes) -> Description | None:
        text = await self.cache.narinfo(path_hash)
        if text is None:
            return None
        try:
            return _description_of(NarInfo.parse(text))
        except InvalidData as error:
            digits = nixbase32.encode(path_hash)
            raise CorruptData(f"{self.name}: {digits}.narinfo: {error}") from error

    async def bring(self, description: Description, source: Source, meter: Meter) -> Publish:
        proof = self.trust.judge(description)
        nar = await source.path_infos.open_nar(description)
        if nar is None:
            raise Unavailable(f"{description.store_path}: {source.name} has its NAR no more")
        packed = await pack(
            nar, description, self.compression, self.cache.incoming, self.pools, meter
        )
        with packed:
            if proof is not None:
                await self.pools.cpu.run(packed.prove, proof)
            if not await self.cache.has(packed.url):
                await self.cache.put_nar(packed)
        narinfo = replace(
            narinfo_of(description, packed.url, self.compression),
            file_hash=packed.file_hash,
            file_size=packed.size,
        )

        async def publish() -> None:
            await self.cache.put_narinfo(narinfo)

        return publish


def _description_of(narinfo: NarInfo) -> Description:
    return Description(
        store_path=narinfo.store_path,
        nar_sha256=narinfo.nar_sha256,
        nar_size=narinfo.nar_size,
        references=narinfo.references,
        signatures=narinfo.signatures,
        deriver=narinfo.deriver,
        ca=narinfo.ca,
    )
