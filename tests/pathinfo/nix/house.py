"""One composition's worth of what substituters share, and paths for them to fetch."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.pathinfo.samples import KEYS, TRUSTED, nar_of, store_path
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import EMPTY_DIGEST
from tvixstore.directory import MemoryDirectoryService
from tvixstore.kv import MemoryKeyValue
from tvixstore.metrics import Metrics
from tvixstore.nix import KeyRing, NarInfo, SecretKey, fingerprint
from tvixstore.pathinfo import (
    Description,
    MemoryPathInfoService,
    PathInfoService,
    RememberedAnswers,
)
from tvixstore.pathinfo.nix import Fills, NixPathInfoService
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream
from tvixstore.tree import Content

if TYPE_CHECKING:
    from tests.pathinfo.nix.fake_upstream import FakeUpstream

KIB, MIB = 1 << 10, 1 << 20
SMALL = nar_of({b"a": b"hello", b"link": (b"a",), b"d": {b"x": os.urandom(100 * KIB)}})
LARGE = nar_of({b"big": os.urandom(3 * MIB), b"small": b"text"})


def narinfo(
    nar: bytes,
    *,
    name: str = "thing",
    signer: SecretKey | None = TRUSTED,
    compression: str = "none",
) -> NarInfo:
    info = NarInfo(
        store_path=store_path(name),
        url=f"nar/{name}.nar",
        compression=compression,
        nar_sha256=hashlib.sha256(nar).digest(),
        nar_size=len(nar),
    )
    if signer is None:
        return info
    message = fingerprint(info.store_path, info.nar_sha256, info.nar_size, ())
    return replace(info, signatures=(signer.sign(message),))


class Admission:
    def __init__(self) -> None:
        self.open = True
        self.failures: list[str] = []

    def admits(self, size: int) -> bool:
        return self.open

    def failed(self, size: int, reason: str) -> None:
        self.failures.append(reason)


@dataclass
class House:
    """One composition's worth of what substituters share."""

    directory: Path
    pools: Pools
    fills: Fills
    content: Content
    near: MemoryPathInfoService
    remembered: RememberedAnswers
    admission: Admission
    metrics: Metrics

    def service(
        self, upstream: FakeUpstream, keys: KeyRing | None = KEYS, retries: int = 2
    ) -> NixPathInfoService:
        return NixPathInfoService(
            upstream=upstream,
            content=self.content,
            fills=self.fills,
            remembered=self.remembered,
            key=upstream.name.encode(),
            keys=keys,
            retries=retries,
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was kept: no blob, no Directory, no path info, no spooled byte."""
        blobs, directories = self.content.blobs, self.content.directories
        assert isinstance(blobs, MemoryBlobService)
        assert isinstance(directories, MemoryDirectoryService)
        kept = (set(blobs.blobs) - {EMPTY_DIGEST}, directories.directories, self.near.infos)
        return not any(kept) and os.listdir(self.directory) == []

    def outcomes(self) -> dict[str, float]:
        return {
            sample.labels["outcome"]: sample.value
            for metric in self.metrics.fills.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }


@asynccontextmanager
async def house_in(directory: Path, *, verify_ahead: int = MIB) -> AsyncIterator[House]:
    pools, metrics, admission = Pools(), Metrics(), Admission()
    content = Content(MemoryBlobService(), MemoryDirectoryService())
    fills = Fills(directory, pools, metrics, admission, verify_ahead=verify_ahead)
    remembered = RememberedAnswers(MemoryKeyValue())
    near = MemoryPathInfoService(content)
    try:
        yield House(directory, pools, fills, content, near, remembered, admission, metrics)
    finally:
        await fills.aclose()
        await remembered.aclose()
        pools.close()


async def settled(house: House) -> None:
    """Waits until no fill is under way."""
    while house.fills._tasks:
        await asyncio.wait(set(house.fills._tasks))


async def turns() -> None:
    """Lets everybody else go on until they wait for something."""
    for _ in range(20):
        await asyncio.sleep(0)


async def described(service: NixPathInfoService, info: NarInfo) -> Description:
    """What `service` says of the path of `info`, which it has."""
    description = await service.describe(info.store_path.hash)
    assert description is not None
    return description


async def opened_nar(
    service: NixPathInfoService,
    description: Description,
    offset: int = 0,
    length: int | None = None,
    into: PathInfoService | None = None,
) -> ByteStream:
    """The NAR of `description`, which `service` can give."""
    stream = await service.open_nar(description, offset, length, into)
    assert stream is not None
    return stream
