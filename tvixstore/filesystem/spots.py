"""Where things of a tree go, and what is said when they cannot."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final, TypeAlias

from tvixstore.castore import FileNode
from tvixstore.errors import StorageFull, TreeError

# As Nix restores them, whatever the umask.
_FILE_MODE: Final = 0o644
_EXECUTABLE_MODE: Final = 0o755
FOLDER_MODE: Final = 0o755
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

# The names of the folders that lead somewhere, from the top.
Way: TypeAlias = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something goes: its name in the folder at the end of `way`."""

    way: Way
    name: bytes


def mode_of(node: FileNode) -> int:
    return _EXECUTABLE_MODE if node.executable else _FILE_MODE


def in_the_way(path: bytes) -> TreeError:
    return TreeError(path, "is there already, and something else: nothing is written over it")


def unwritten(path: bytes, error: OSError) -> TreeError | StorageFull:
    """Something could not be put there."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
        return in_the_way(path)
    told = TreeError(path, f"cannot be written: {error.strerror or type(error).__name__}")
    return StorageFull(str(told)) if error.errno in _FULL else told


def unread(path: bytes, error: OSError) -> TreeError:
    """What is there could not be looked at."""
    reason = error.strerror or type(error).__name__
    return TreeError(path, f"is there already, and cannot be read: {reason}")
