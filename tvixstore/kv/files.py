"""What a file system asks for: names made durable, and its errors in our words."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from tvixstore.errors import StorageFull, StoreError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

# EFBIG is how a limit on the size of files shows.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sync_directory(path: Path | str) -> None:
    """Makes names that came or went in `path` survive a power cut. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """What processes without privileges can still write to the file system of `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def storage_error(error: OSError, path: Path) -> StoreError:
    """`error` of a file below `path`, as `StorageFull` or `Unavailable`."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return StorageFull(f"{path}: no room to write: {reason}")
    return Unavailable(f"{path}: {reason}")
