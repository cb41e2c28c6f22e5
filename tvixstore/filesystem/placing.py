"""A tree put on disk, for threads: nothing but inside of one folder, and nothing over what exists.

Each folder is opened below the one that it is in, links are not followed, and a file gets its name
when it is complete, by a link that does not replace anything. So whatever breaks an extraction off,
all that is there is whole, and beginning again finds it done.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from blake3 import blake3

from tvixstore.castore import Directory, FileNode
from tvixstore.errors import StorageFull, TreeError

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NAMELESS_FLAGS: Final = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
# As Nix restores them, whatever the umask.
_FILE_MODE: Final = 0o644
_EXECUTABLE_MODE: Final = 0o755
_FOLDER_MODE: Final = 0o755
# <linux/fs.h>: shares what one file has with another one.
_FICLONE: Final = 0x40049409
# What opening a file without a name fails with, where there are none.
_NO_NAMELESS: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}
)
# What a file is called that is not complete, where it has to have a name.
# The first half of the digits is the same for all files of one extraction.
_PARTIAL: Final = re.compile(rb"\.tvixstore-partial-([0-9a-f]{16})[0-9a-f]{16}")
# What opening something for reading says that is no file.
_ANOTHER_KIND: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_BYTES: Final = 1 << 20

# The names of the folders that lead somewhere, from the top.
Way: TypeAlias = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something goes: its name in the folder at the end of `way`."""

    way: Way
    name: bytes


class Placing:
    """Puts things below the folder `top`, in any number of threads, once one has called `open`.

    To be closed after them.
    """

    def __init__(self, top: bytes) -> None:
        self._top = top
        self._token = secrets.token_hex(8).encode()
        self._descriptor: int | None = None

    def open(self) -> None:
        try:
            self._descriptor = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _failed(self._top, error) from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def hand(self) -> Hand:
        """What one thread works with. To be closed by it."""
        assert self._descriptor is not None
        return Hand(self._top, self._descriptor, self._token)


class Hand:
    """Keeps the folders open that lead to where it put something last."""

    def __init__(self, top: bytes, descriptor: int, token: bytes) -> None:
        self._top = top
        self._token = token
        self._names: list[bytes] = []
        self._descriptors = [descriptor]
        # Where it is, unless it failed to get there.
        self._way: Way | None = ()

    def close(self) -> None:
        while self._names:
            self._leave()

    def folder(self, spot: Spot, directory: Directory) -> None:
        """A folder. One that is there already may have nothing that `directory` has not."""
        at = self._go(spot.way)
        try:
            if _made_folder(spot.name, at):
                return
        except OSError as error:
            raise _failed(self._path(spot), error) from error
        inside = self._go((*spot.way, spot.name))
        try:
            names = {os.fsencode(name) for name in os.listdir(inside)}
            if not names and spot.way:
                # Of an extraction that was broken off before it gave it its mode.
                os.fchmod(inside, _FOLDER_MODE)
            for name in names - {name for name, _ in directory}:
                if not self._clear(name, inside):
                    raise TreeError(
                        self._path(spot) + b"/" + name,
                        "is there, and not in what is to be put there: choose another place",
                    )
        except OSError as error:
            raise _failed(self._path(spot), error) from error

    def _clear(self, name: bytes, folder: int) -> bool:
        """Removes what an extraction left there that was broken off; whether it is of one."""
        partial = _PARTIAL.fullmatch(name)
        if partial is None:
            return False
        if partial[1] == self._token:
            return True
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):
                return False
            os.unlink(name, dir_fd=folder)
        return True

    def link(self, spot: Spot, target: bytes) -> None:
        at = self._go(spot.way)
        try:
            os.symlink(target, spot.name, dir_fd=at)
        except FileExistsError:
            if _target_of(spot.name, at) != target:
                raise self._in_the_way(spot) from None
        except OSError as error:
            raise _failed(self._path(spot), error) from error

    def file(self, spot: Spot, node: FileNode, contents: bytes) -> None:
        """A small one; it was looked at before whether it is there."""
        at = self._go(spot.way)
        try:
            descriptor = os.open(b".", _NAMELESS_FLAGS, 0o600, dir_fd=at)
        except OSError:
            # Also for what it then says.
            with self.begin(spot, node) as opened:
                opened.write(contents)
                opened.finish()
            return
        try:
            _write(descriptor, contents)
            os.fchmod(descriptor, _mode(node))
            _name(descriptor, spot.name, at)
        except OSError as error:
            raise _failed(self._path(spot), error) from error
        finally:
            os.close(descriptor)

    def begin(self, spot: Spot, node: FileNode) -> OpenFile:
        """One whose contents are to be written."""
        at = self._go(spot.way)
        try:
            return OpenFile(self._path(spot), at, spot.name, node, self._token)
        except OSError as error:
            raise _failed(self._path(spot), error) from error

    def has(self, spot: Spot, node: FileNode) -> bool:
        """Whether that very file is there. Raises `TreeError` if something else is."""
        at = self._go(spot.way)
        try:
            descriptor = os.open(spot.name, _READ_FLAGS, dir_fd=at)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in _ANOTHER_KIND:
                raise self._in_the_way(spot) from None
            raise TreeError(self._path(spot), _unread(error)) from error
        try:
            if not _is(descriptor, node):
                raise self._in_the_way(spot)
        except OSError as error:
            raise TreeError(self._path(spot), _unread(error)) from error
        finally:
            os.close(descriptor)
        return True

    def again(self, spot: Spot, node: FileNode, other: Spot) -> None:
        """A file like the one at `other`: it shares its blocks, or else is the very same."""
        at = self._go(other.way)
        try:
            source = os.open(other.name, _READ_FLAGS, dir_fd=at)
        except OSError as error:
            raise TreeError(self._path(other), _unread(error)) from error
        try:
            self._copy(spot, node, source)
        except OSError as error:
            raise TreeError(self._path(other), _unread(error)) from error
        finally:
            os.close(source)

    def _copy(self, spot: Spot, node: FileNode, source: int) -> None:
        if not _is(source, node):
            raise self._in_the_way(spot)
        with self.begin(spot, node) as opened:
            if opened.clone(source):
                opened.finish()
                return
        if self._linked(source, spot, node):
            return
        os.lseek(source, 0, os.SEEK_SET)
        with self.begin(spot, node) as opened:
            while data := os.read(source, _READ_BYTES):
                opened.write(data)
            opened.finish()

    def _linked(self, source: int, spot: Spot, node: FileNode) -> bool:
        found = os.fstat(source)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != _mode(node):
            # It was there before, and another link would have its owner and mode.
            return False
        try:
            _name(source, spot.name, self._go(spot.way))
        except FileExistsError:
            raise self._in_the_way(spot) from None
        except OSError:
            # Too many links of one file, or a file system that has none.
            return False
        return True

    def _go(self, way: Way) -> int:
        """Opens the folder at the end of `way`, making those that are not there."""
        if way == self._way:
            return self._descriptors[-1]
        self._way = None
        common = 0
        while common < min(len(way), len(self._names)) and way[common] == self._names[common]:
            common += 1
        while len(self._names) > common:
            self._leave()
        for name in way[common:]:
            path = b"/".join([self._top, *self._names, name])
            try:
                _made_folder(name, self._descriptors[-1])
                descriptor = os.open(name, _FOLDER_FLAGS, dir_fd=self._descriptors[-1])
            except OSError as error:
                raise _failed(path, error) from error
            self._descriptors.append(descriptor)
            self._names.append(name)
        self._way = way
        return self._descriptors[-1]

    def _leave(self) -> None:
        self._names.pop()
        os.close(self._descriptors.pop())

    def _path(self, spot: Spot) -> bytes:
        return b"/".join([self._top, *spot.way, spot.name])

    def _in_the_way(self, spot: Spot) -> TreeError:
        return in_the_way(self._path(spot))


class OpenFile:
    """A file that nobody sees before `finish`; leaving it without leaves nothing."""

    def __init__(self, path: bytes, folder: int, name: bytes, node: FileNode, token: bytes) -> None:
        self._path = path
        # Its own, since whoever opened it goes on to others.
        self._folder = os.dup(folder)
        self._name = name
        self._mode = _mode(node)
        self._token = token
        self._partial: bytes | None = None
        try:
            self._descriptor = self._open()
        except BaseException:
            os.close(self._folder)
            raise

    def write(self, data: bytes) -> None:
        try:
            _write(self._descriptor, data)
        except OSError as error:
            raise _failed(self._path, error) from error

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
                _name(self._descriptor, self._name, self._folder)
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
            raise _failed(self._path, error) from error

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


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _name(descriptor: int, name: bytes, folder: int) -> None:
    """Gives what is open a name, another one if it has one; replaces nothing."""
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=folder, follow_symlinks=True)


def _made_folder(name: bytes, parent: int) -> bool:
    try:
        # With the umask that most have, it is right at once.
        os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
    except FileExistsError:
        return False
    descriptor = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    try:
        os.fchmod(descriptor, _FOLDER_MODE)
    finally:
        os.close(descriptor)
    return True


def _is(descriptor: int, node: FileNode) -> bool:
    found = os.fstat(descriptor)
    if (
        not stat.S_ISREG(found.st_mode)
        or found.st_size != node.size
        or bool(found.st_mode & stat.S_IXUSR) != node.executable
    ):
        return False
    hasher = blake3()
    while data := os.read(descriptor, _READ_BYTES):
        hasher.update(data)
    return hasher.digest() == node.digest.raw


def _mode(node: FileNode) -> int:
    return _EXECUTABLE_MODE if node.executable else _FILE_MODE


def _unread(error: OSError) -> str:
    return f"is there already, and cannot be read: {error.strerror or type(error).__name__}"


def _target_of(name: bytes, folder: int) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def in_the_way(path: bytes) -> TreeError:
    return TreeError(path, "is there already, and something else: nothing is written over it")


def _failed(path: bytes, error: OSError) -> TreeError | StorageFull:
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
        return in_the_way(path)
    told = TreeError(path, f"cannot be written: {error.strerror or type(error).__name__}")
    return StorageFull(str(told)) if error.errno in _FULL else told
