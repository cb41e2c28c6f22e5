"""Frees what eviction, and whatever else let go of it, has left without anybody to refer to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvixstore.blob.chunk_files import chunk_path
from tvixstore.blob.staging import to_the_end
from tvixstore.kv import Freed, Freeing, step
from tvixstore.log import Logger
from tvixstore.pools import Pools

_log = Logger(__name__)


@dataclass(slots=True)
class Collected:
    """What was freed: objects, the bytes of their rows and files, and those of files alone."""

    objects: int = 0
    bytes: int = 0
    file_bytes: int = 0


class Collector:
    """Works on `freeing`; chunk files are below `chunks`. For one caller at a time."""

    def __init__(self, freeing: Freeing, chunks: Path, pools: Pools) -> None:
        self.freeing = freeing
        self._chunks = os.fspath(chunks)
        self._pools = pools
        self._forget: list[Callable[[Sequence[bytes]], None]] = []

    def on_freed(self, forget: Callable[[Sequence[bytes]], None]) -> None:
        """Has `forget` told of Directories that are gone, before anybody can look for them."""
        self._forget.append(forget)

    def no_longer(self, forget: Callable[[Sequence[bytes]], None]) -> None:
        """Takes `on_freed` back."""
        self._forget.remove(forget)

    async def collect(self) -> Collected:
        """Frees all that is due and not held; what that leaves without a parent, too."""
        total = Collected()
        if not await self.freeing.is_due():
            return total
        before = -1
        while total.objects > before:
            before = total.objects
            after: bytes | None = None
            while True:
                freed = await to_the_end(self._free(after))
                total.objects += freed.objects
                total.bytes += freed.row_bytes + freed.file_bytes
                total.file_bytes += freed.file_bytes
                if (after := freed.after) is None:
                    break
        return total

    async def _free(self, after: bytes | None) -> Freed:
        """One transaction of it. Not to be left half done: others wait for what it frees."""
        try:
            freed = await self.freeing.free(after)
            for forget in self._forget:
                forget(freed.directories)
            if freed.files:
                await self._pools.files.run(self._unlink, freed.files)
            return freed
        finally:
            self.freeing.settled()

    def _unlink(self, digests: Sequence[bytes]) -> None:
        for digest in digests:
            path = chunk_path(self._chunks, digest)
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            except OSError as error:
                # Nothing names it any more: the sweep at the next start tries again.
                _log.warning("eviction.file_left", path=path, reason=error)
        step("chunk-files-unlinked")
