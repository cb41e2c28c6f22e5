"""A bucket of objects by key, over obstore; its errors are ours, and what is put can be made
durable."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore

from tvixstore.errors import ConfigError, CorruptData, Unavailable
from tvixstore.kv.files import storage_error, sync_directory
from tvixstore.policy.tasks import end

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from obstore.store import ObjectStore

    from tvixstore.pools import Pools

# Threads that wait for the disk at once.
SYNC_THREADS = 4
# No object of ours comes near; what is longer is not read into memory.
MAX_OBJECT_BYTES = 64 << 20

Result = TypeVar("Result")


async def together(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all of `work`, done at once; the first error, when nothing runs any more."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end(tasks)


@dataclass(eq=False)
class Bucket:
    """Objects in `store`. Those of a folder on this machine are at `folder`."""

    url: str
    store: ObjectStore = field(repr=False)
    pools: Pools = field(repr=False)
    folder: Path | None = field(default=None, repr=False)
    # Folders whose own names are known to be durable.
    _durable_folders: set[Path] = field(default_factory=set, init=False, repr=False)

    @classmethod
    def at(cls, url: str, pools: Pools) -> Bucket:
        """The bucket at a `file://` or `memory://` URL. Raises `ConfigError`, one line.

        Each bucket in memory is another one. Blocks for a moment.
        """
        parts = urlsplit(url)
        if parts.scheme == "memory":
            return cls(url, MemoryStore(), pools)
        if parts.scheme != "file":
            raise ConfigError(f"{url}: object stores are at file:// and memory:// only")
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(url, LocalStore(folder), pools, folder)
        except (OSError, BaseError) as error:
            raise ConfigError(
                f"object store {folder}: {error}: name a folder that this user can write to"
            ) from error

    async def has(self, key: str) -> bool:
        try:
            await obstore.head_async(self.store, key)
        except (NotFoundError, FileNotFoundError):
            return False
        except (BaseError, OSError) as error:
            raise self._error(key, error) from error
        return True

    async def get(self, key: str) -> bytes | None:
        """The object, or `None`. Raises `CorruptData` for one that is longer than any of ours."""
        try:
            found = await obstore.get_async(self.store, key)
            if (size := found.meta["size"]) > MAX_OBJECT_BYTES:
                raise CorruptData(f"{self.url}: {key} is {size} bytes long")
            return bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise self._error(key, error) from error

    async def put(self, key: str, data: bytes) -> None:
        """Writes an object, all of it or nothing; `sync` makes it durable."""
        try:
            await obstore.put_async(self.store, key, data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise self._error(key, error) from error

    async def sync(self, keys: Iterable[str]) -> None:
        """Makes the objects of `keys` survive a power cut."""
        if self.folder is None:
            return
        paths = [self.folder / key for key in dict.fromkeys(keys)]
        shares = min(SYNC_THREADS, len(paths))
        try:
            await together(
                [self.pools.files.run(self._sync, paths[share::shares]) for share in range(shares)]
            )
        except OSError as error:
            raise storage_error(error, self.folder) from error

    def _sync(self, paths: list[Path]) -> None:
        assert self.folder is not None
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        for parent in {path.parent for path in paths}:
            sync_directory(parent)
            while parent != self.folder and parent not in self._durable_folders:
                above = parent.parent
                sync_directory(above)
                # Only now: who finds it here relies on it.
                self._durable_folders.add(parent)
                parent = above

    def _error(self, key: str, error: Exception) -> Unavailable:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Unavailable(f"{self.url}: {key}: {lines[0]}")
