"""A file on its way to disk: it gets its name when it is complete, and takes nobody's."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from typing import Final

from tvixstore.castore import FileNode
from tvixstore.filesystem.spots import in_the_way, mode_of, unwritten

_NAMELESS_FLAGS: Final = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
# <linux/fs.h>: shares what one file has with another one.
_FICLONE: Final = 0x40049409
# What opening a file without a name fails with, where there are none.
_NO_NAMELESS: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}
)
# What a file is called that is not complete, where it has to have a name.
# The first half of the digits is the same for all files of one extraction.
_PARTIAL: Final = re.compile(rb"\.tvixstore-partial-([0-9a-f]{16})[0-9a-f]{16}")


class OpenFile:
    """A file that nobody sees before `finish`; leaving it without leaves nothing."""

    def __init__(self, path: bytes, folder: int, name: bytes, node: FileNode, token: bytes) -> None:
        self._path = path
        # Its own, since whoever opened it goes on to others.
        self._folder = os.dup(folder)
        self._name = name
        self._mode = mode_of(node)
        self._token = token
        self._partial: bytes | None = None
        try:
            self._descriptor = self._open()
        except BaseException:
            os.close(self._folder)
            raise

    def write(self, data: bytes) -> None:
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise unwritten(self._path, error) from error

    def clone(self, source: int) -> bool:
        """Whether it has the contents of `source` now, without a copy of them."""
        try:
            fcntl.ioctl(self._descriptor, _FICLONE, source)
        except OSError:
            return False
        return True

    def finish(self) -> None:
        """Gives it its name. Raises `TreeError` if something has that by now."""
        try:
            os.fchmod(self._descriptor, self._mode)
            if self._partial is None:
                give_name(self._descriptor, self._name, self._folder)
            else:
                os.link(
                    *(self._partial, self._name),
                    src_dir_fd=self._folder,
                    dst_dir_fd=self._folder,
                    follow_symlinks=False,
                )
        except FileExistsError:
            raise in_the_way(self._path) from None
        except OSError as error:
            raise unwritten(self._path, error) from error

    def close(self) -> None:
        try:
            if self._partial is not None:
                # Unless another extraction has cleared it away.
                with suppress(FileNotFoundError):
                    os.unlink(self._partial, dir_fd=self._folder)
        finally:
            os.close(self._descriptor)
            os.close(self._folder)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> int:
        try:
            return os.open(b".", _NAMELESS_FLAGS, 0o600, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in _NO_NAMELESS:
                raise
        name = b".tvixstore-partial-%b%b" % (self._token, secrets.token_hex(8).encode())
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self._folder)
        self._partial = name
        return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def give_name(descriptor: int, name: bytes, folder: int) -> None:
    """Gives what is open a name, another one if it has one; replaces nothing."""
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)


def clear_partial(name: bytes, folder: int, token: bytes) -> bool:
    """Removes a file of an extraction that was broken off; whether `name` is of an extraction."""
    partial = _PARTIAL.fullmatch(name)
    if partial is None:
        return False
    if partial[1] == token:
        return True
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):
            return False
        os.unlink(name, dir_fd=folder)
    return True
