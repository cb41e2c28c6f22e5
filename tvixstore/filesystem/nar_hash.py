"""What the NAR of a tree on disk is known by, found out without a store."""

from __future__ import annotations

import os
from typing import Final

from tvixstore.filesystem.nar_digest import NarDigest
from tvixstore.filesystem.walk import File, LargeFile, walk
from tvixstore.nar import CloseDirectory, NarIdentity, OpenDirectory, Symlink
from tvixstore.pools import Pools

# What a thread reads before it looks whether anybody still waits for it.
_EVENTS: Final = 1000
_BYTES: Final = 16 << 20
_SLICE: Final = 2 << 20


async def nar_hash(path: str | bytes | os.PathLike[str], pools: Pools) -> NarIdentity:
    """Size and SHA-256 of the NAR of what is at `path`; memory does not grow with it.

    Raises `TreeError`, as `walk` does.
    """
    hashing = _Hashing(absolute(path))
    try:
        while (identity := await pools.files.run(hashing.step)) is None:
            pass
        return identity
    finally:
        hashing.close()


async def hash_alone(path: str | bytes | os.PathLike[str]) -> NarIdentity:
    """As `nar_hash`, in threads of its own."""
    pools = Pools(dns=1)
    try:
        return await nar_hash(path, pools)
    finally:
        pools.close()


def absolute(path: str | bytes | os.PathLike[str]) -> bytes:
    """As Nix takes paths: relative to the current folder, `.`, `..` and slashes at the end gone,
    links as they are."""
    return os.path.abspath(os.fsencode(path))


class _Hashing:
    """For threads, one at a time."""

    def __init__(self, path: bytes) -> None:
        self._events = walk(path)
        self._digest = NarDigest()
        self._file: LargeFile | None = None
        self._offset = 0

    def step(self) -> NarIdentity | None:
        """Goes on for a while; the identity at the end."""
        left = _BYTES
        for _ in range(_EVENTS):
            while self._file is not None and left > 0:
                left -= self._read(self._file)
            if left <= 0:
                break
            event = next(self._events, None)
            match event:
                case File(name, executable, contents):
                    self._digest.file(name, executable, contents)
                    left -= len(contents)
                case LargeFile(name, executable, size):
                    self._digest.open_file(name, executable, size)
                    self._file, self._offset = event, 0
                case OpenDirectory(name):
                    self._digest.open_directory(name)
                case CloseDirectory():
                    self._digest.close_directory()
                case Symlink(name, target):
                    self._digest.symlink(name, target)
                case None:
                    return self._digest.finish()
        return None

    def close(self) -> None:
        self._events.close()

    def _read(self, file: LargeFile) -> int:
        data = file.read(self._offset, _SLICE)
        self._digest.contents(data)
        self._offset += len(data)
        if self._offset == file.size:
            self._digest.close_file()
            self._file = None
        return len(data)
