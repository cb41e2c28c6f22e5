"""A binary cache that can be written: in Nix's layout, the file that names another one last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from tvixstore.nix import STORE_DIR, NarInfo
from tvixstore.transfer.packing import Packed

# What a cache that has none gets.
CACHE_INFO_TEXT: Final = f"StoreDir: {STORE_DIR}\nWantMassQuery: 1\nPriority: 40\n"


class BinaryCache(ABC):
    """Whoever opened it closes it."""

    # Where NARs are packed before they are put.
    incoming: Path

    @abstractmethod
    async def prepare(self) -> None:
        """Makes it a cache if it is none yet. Raises `CorruptData` if it is of another store."""

    @abstractmethod
    async def narinfo(self, path_hash: bytes) -> str | None:
        """The narinfo of that path, unparsed; `None` if there is none."""

    @abstractmethod
    async def has(self, url: str) -> bool:
        """Whether a NAR is there under that URL, which is its hash."""

    @abstractmethod
    async def put_nar(self, packed: Packed) -> None:
        """Stores a NAR under its URL; it can be read, whole, when this returns."""

    @abstractmethod
    async def put_narinfo(self, narinfo: NarInfo) -> None:
        """Stores it, over any that there is."""

    @abstractmethod
    async def aclose(self) -> None:
        """Closes connections."""
