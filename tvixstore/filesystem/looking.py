"""What is there already, looked at without following links."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from blake3 import blake3

from tvixstore.castore import FileNode

READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# What opening something for reading says that is no file.
ANOTHER_KIND: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
READ_BYTES: Final = 1 << 20


def is_that(descriptor: int, found: os.stat_result, node: FileNode) -> bool:
    """Whether what is open, and of which `found` is known, is that file."""
    if (
        not stat.S_ISREG(found.st_mode)
        or found.st_size != node.size
        or bool(found.st_mode & stat.S_IXUSR) != node.executable
    ):
        return False
    hasher = blake3()
    while data := os.read(descriptor, READ_BYTES):
        hasher.update(data)
    return hasher.digest() == node.digest.raw


def is_there(name: bytes, folder: int) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def target_of(name: bytes, folder: int) -> bytes | None:
    """Where that link leads, if it is one."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None
