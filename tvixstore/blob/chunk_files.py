"""Chunks as files: `chunks/ab/<digest in hex>`. Everything here blocks: call it in a thread.

A file gets its final name only when all of it is written, by renaming it out of
`chunks/incoming/`; what is found in there at start was left by a process that was killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from tvixstore.kv.files import sync_directory
from tvixstore.kv.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class ChunkFiles:
    """The files below `root`; one instance a directory at a time.

    `durable`: what is written and named survives a power cut. Otherwise a power cut may leave
    files empty or torn, which their readers notice by the hash.
    """

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root
        self._root = os.fspath(root)
        self._incoming = os.path.join(self._root, "incoming")
        self._durable = durable
        # All folders at once: later, making one would mean syncing one level more.
        os.makedirs(self._incoming, exist_ok=True)
        present = set(os.listdir(self._root))
        missing = [name for name in (f"{byte:02x}" for byte in range(256)) if name not in present]
        for name in missing:
            os.mkdir(os.path.join(self._root, name))
        if missing:
            sync_directory(root)
            sync_directory(root.parent)
        self.remove([os.path.join(self._incoming, name) for name in os.listdir(self._incoming)])

    def path(self, digest: bytes) -> str:
        return chunk_path(self._root, digest)

    def incoming_name(self) -> str:
        """A path that no other file has."""
        return f"{self._incoming}/{secrets.token_hex(12)}"

    def write(self, files: Iterable[tuple[str, bytes | memoryview]]) -> None:
        """Writes new files, durably; their names may still be lost."""
        for path, payload in files:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                step("chunk-file-begun")
                _write_all(descriptor, memoryview(payload))
                if self._durable:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            step("chunk-file-written")

    def publish(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Gives written files the names of their digests, durably."""
        folders = set()
        for path, digest in files:
            final = self.path(digest)
            os.rename(path, final)
            folders.add(os.path.dirname(final))
            step("chunk-file-renamed")
        if self._durable:
            # The first of these commits the file system's journal, the others find it done.
            for folder in folders:
                sync_directory(folder)

    def remove(self, paths: Iterable[str]) -> int:
        """Removes those of `paths` that are there, and says how many were."""
        removed = 0
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                removed += 1
        return removed

    def take_away(self, path: str) -> int:
        """Removes one file, and says how large it was, at least 1; 0 if it is not there."""
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return max(1, size)

    def read(self, digest: bytes, size: int) -> bytes:
        """The file's bytes if it has `size` of them; otherwise as many as tell that it has not."""
        descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, size + 1)
            while len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
                data += more
            return data
        finally:
            os.close(descriptor)


def chunk_path(root: str, digest: bytes) -> str:
    """The file of that chunk in the folder `root`."""
    name = digest.hex()
    return f"{root}/{name[:2]}/{name}"


def _write_all(descriptor: int, payload: memoryview) -> None:
    while payload:
        payload = payload[os.write(descriptor, payload) :]
