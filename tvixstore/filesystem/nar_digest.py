"""The size and the hash of a NAR, of which nothing but the hash is ever held in memory."""

from __future__ import annotations

import hashlib
from typing import Final

from tvixstore.nar import (
    NarIdentity,
    close_directory,
    close_regular,
    open_directory,
    open_regular,
    symlink,
)

# So much is hashed in one go: hashing a small file by itself costs mostly the call.
_HELD: Final = 128 << 10


class NarDigest:
    """Takes nodes in the order of a NAR, then gives its identity. For one thread at a time."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._size = 0
        self._parts: list[bytes] = []
        self._held = 0
        # The names of what is open: directories, and the large file at hand.
        self._open: list[bytes] = []
        self._file_size = 0

    def open_directory(self, name: bytes) -> None:
        self._open.append(name)
        self._take(open_directory(name))

    def close_directory(self) -> None:
        self._take(close_directory(self._open.pop()))

    def symlink(self, name: bytes, target: bytes) -> None:
        self._take(symlink(name, target))

    def file(self, name: bytes, executable: bool, contents: bytes) -> None:
        size = len(contents)
        head = open_regular(name, size, executable)
        tail = close_regular(name, size)
        self._parts += (head, contents, tail)
        self._held += len(head) + size + len(tail)
        if self._held >= _HELD:
            self._flush()

    def open_file(self, name: bytes, executable: bool, size: int) -> None:
        """A file of which the contents follow, in any parts, and `close_file`."""
        self._open.append(name)
        self._file_size = size
        self._take(open_regular(name, size, executable))

    def contents(self, data: bytes) -> None:
        self._flush()
        self._hasher.update(data)
        self._size += len(data)

    def close_file(self) -> None:
        self._take(close_regular(self._open.pop(), self._file_size))

    def finish(self) -> NarIdentity:
        """After the root was closed."""
        self._flush()
        return NarIdentity(self._size, self._hasher.digest())

    def _take(self, part: bytes) -> None:
        self._parts.append(part)
        self._held += len(part)
        if self._held >= _HELD:
            self._flush()

    def _flush(self) -> None:
        self._hasher.update(b"".join(self._parts))
        self._size += self._held
        self._parts, self._held = [], 0
