"""Folders that an extraction is filling: marked by their mode until all that goes there is there.

Such a folder is private, and has the bit by which files stay their owners'. Small files get their
names in it at once, which takes half as long as giving them names when they are complete. If the
extraction is killed, the mark stays, and whoever begins again knows that the beginning of a file in
there is of what was broken off. Nowhere else is anything removed. Two extractions cannot fill a
folder at a time: the one that came first has a lock on the folder at the top of the tree.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from typing import Final

from tvixstore.castore import FileNode
from tvixstore.errors import TreeError
from tvixstore.filesystem.looking import READ_FLAGS
from tvixstore.filesystem.open_file import write_all
from tvixstore.filesystem.spots import in_the_way, mode_of

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MARK: Final = 0o1700
# Files up to this size are read whole, and get their names at once.
SMALL: Final = 1 << 20
_NEW_FLAGS: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def made_folder(name: bytes, parent: int, mode: int) -> bool:
    """Whether it was not there before."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def is_marked(folder: int) -> bool:
    """Whether an extraction of this user is filling that folder, or was broken off at it."""
    found = os.fstat(folder)
    # What is made in a folder with the bit for groups inherits that.
    mode = stat.S_IMODE(found.st_mode) & ~stat.S_ISGID
    return mode == MARK and found.st_uid == os.geteuid()


def lock(folder: int, path: bytes) -> bool:
    """Keeps other extractions off until `folder` is closed; whether there are locks at all."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TreeError(
            path, "is being filled by another extraction: wait until that is over"
        ) from None
    except OSError:
        return False
    return True


def fill(folder: int, node: FileNode, name: bytes, contents: bytes) -> None:
    """Puts a file into a folder that is marked. Raises `OSError`."""
    mode = mode_of(node)
    descriptor = os.open(name, _NEW_FLAGS, mode, dir_fd=folder)
    try:
        if contents and (written := os.write(descriptor, contents)) < len(contents):
            write_all(descriptor, contents[written:])
        # As is said, whatever the umask; and seldom has to be changed, which takes longer.
        if os.fstat(descriptor).st_mode != stat.S_IFREG | mode:
            os.fchmod(descriptor, mode)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)


def may_be_torn(found: os.stat_result, node: FileNode) -> bool:
    """Whether, in a folder that is marked, it may be the beginning of that file."""
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid == os.geteuid()
        and found.st_nlink == 1
        and found.st_size <= node.size <= SMALL
    )


def clear_torn(folder: int, node: FileNode, name: bytes, contents: bytes, path: bytes) -> None:
    """Removes the beginning of a file from a folder that is marked. Raises `TreeError` if it is
    something else, and `OSError`."""
    descriptor = os.open(name, READ_FLAGS, dir_fd=folder)
    try:
        found = os.fstat(descriptor)
        beginning = os.read(descriptor, len(contents) + 1)
    finally:
        os.close(descriptor)
    is_all = len(beginning) == found.st_size
    if not (is_all and may_be_torn(found, node) and contents.startswith(beginning)):
        raise in_the_way(path)
    os.unlink(name, dir_fd=folder)
