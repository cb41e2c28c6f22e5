"""Writing a binary cache in a folder. A file is there whole or not at all, whatever happens."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from tvixstore.errors import ConfigError
from tvixstore.kv.files import storage_error, sync_directory
from tvixstore.nix import NarInfo
from tvixstore.pathinfo.nix import UpstreamSettings
from tvixstore.pathinfo.nix.file_upstream import FileUpstream, folder_of
from tvixstore.pathinfo.nix.store_dir import CACHE_INFO
from tvixstore.pools import Pools
from tvixstore.transfer.binary_cache import CACHE_INFO_TEXT, BinaryCache
from tvixstore.transfer.packing import INCOMING, Packed

# A file that is being written is written to now and then; one so old, in seconds, was left behind.
_ABANDONED: Final = 86400.0


class FolderCache(BinaryCache):
    """The cache at `settings.url`, `file:///…`; the folder is made if need be."""

    def __init__(self, settings: UpstreamSettings, pools: Pools) -> None:
        self._root = folder_of(settings)
        self._upstream = FileUpstream(settings, pools)
        self._pools = pools
        # Where it is renamed to its place.
        self.incoming = self._root / "nar"

    async def prepare(self) -> None:
        await self._pools.files.run(self._prepare)
        await self._upstream.check_store_dir()

    async def narinfo(self, path_hash: bytes) -> str | None:
        return await self._upstream.narinfo(path_hash)

    async def has(self, url: str) -> bool:
        return await self._pools.files.run((self._root / url).is_file)

    async def put_nar(self, packed: Packed) -> None:
        await self._pools.files.run(self._move, packed.path, packed.url)

    async def put_narinfo(self, narinfo: NarInfo) -> None:
        name = f"{narinfo.store_path.digits}.narinfo"
        await self._pools.files.run(self._write, name, str(narinfo))

    async def aclose(self) -> None:
        await self._upstream.aclose()

    def _prepare(self) -> None:
        try:
            self.incoming.mkdir(parents=True, exist_ok=True)
            for folder in (self._root, self.incoming):
                _sweep(folder)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(
                f"{self.incoming} cannot be made: {reason}: name a folder that can be written to"
            ) from error
        if not (self._root / CACHE_INFO).exists():
            self._write(CACHE_INFO, CACHE_INFO_TEXT)

    def _write(self, name: str, text: str) -> None:
        try:
            descriptor, path = tempfile.mkstemp(dir=self._root, prefix=INCOMING)
        except OSError as error:
            raise storage_error(error, self._root) from error
        try:
            with open(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            self._move(Path(path), name)
        except OSError as error:
            raise storage_error(error, self._root / name) from error
        finally:
            Path(path).unlink(missing_ok=True)

    def _move(self, path: Path, name: str) -> None:
        place = self._root / name
        try:
            path.rename(place)
            sync_directory(place.parent)
        except OSError as error:
            raise storage_error(error, place) from error


def _sweep(folder: Path) -> None:
    """Removes what a killed process left, and leaves alone what one that runs is writing."""
    for path in folder.glob(f"{INCOMING}*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()
        except FileNotFoundError:
            # Another one was faster.
            continue
