"""Whether what a source says of a path is to be believed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from tvixstore.errors import InvalidData, Untrusted
from tvixstore.nix import KeyRing, NarInfo
from tvixstore.pathinfo import Description
from tvixstore.pathinfo.nix.trust import Proof, judge
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Trust:
    """By signatures of `keys`, or an address of the content; `None` believes the source."""

    keys: KeyRing | None = None

    def judge(self, description: Description) -> Proof | None:
        """Raises `Untrusted`, or says what content has to be held against besides its NAR hash."""
        if self.keys is None:
            return None
        try:
            return judge(narinfo_of(description), self.keys)
        except InvalidData as error:
            raise Untrusted(f"{description.store_path}: {error}") from error


def narinfo_of(description: Description, url: str = "nar", compression: str = "none") -> NarInfo:
    return NarInfo(
        store_path=description.store_path,
        url=url,
        compression=compression,
        nar_sha256=description.nar_sha256,
        nar_size=description.nar_size,
        references=description.references,
        signatures=description.signatures,
        deriver=description.deriver,
        ca=description.ca,
    )


async def prove(proof: Proof, nar: ByteStream, pools: Pools) -> None:
    """Holds `nar` against `proof`, by way of a file. Raises `CorruptData`. Closes `nar`."""
    async with nar:
        with tempfile.TemporaryFile() as file:
            async for piece in nar:
                await pools.files.run(file.write, piece)
            await pools.cpu.run(proof, _pieces(file))


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """In a thread."""
    file.flush()
    position = 0
    while piece := os.pread(file.fileno(), _PIECE, position):
        position += len(piece)
        yield piece
