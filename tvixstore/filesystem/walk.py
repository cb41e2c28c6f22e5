"""Trees on disk, read in the order of a NAR: for threads, since all of it blocks.

Nothing is looked up by a path of more than one name: each directory is opened below the one that is
open already, and symbolic links are read, never followed. So whoever renames things meanwhile
cannot lead the walk out of its tree. What was read is held against the file's size, times and inode
before and after: a tree that changes is no tree.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from tvixstore.errors import TreeError
from tvixstore.nar import MAX_LEVELS, CloseDirectory, OpenDirectory, Symlink

# Files up to this size come with their contents: the smallest chunk by default, so none is cut.
SMALL: Final = 128 << 10

_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What opening says of something that was of another kind a moment ago.
_SWAPPED: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.ENXIO, errno.EISDIR})
_CHANGED: Final = "changed while it was read: try again when nobody writes to it"
_KINDS: Final = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a fifo",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}

# What an entry takes in a Directory, beside its name: a digest, tags and lengths.
_LEAST: Final = {stat.S_IFREG: 38, stat.S_IFDIR: 38, stat.S_IFLNK: 7}

# What stays the same of a file that nobody changes.
Signature: TypeAlias = tuple[int, int, int, int, int, int]


class File(NamedTuple):
    """A small file, with its contents: a tuple, since there are many a second."""

    name: bytes
    executable: bool
    contents: bytes


@dataclass(slots=True)
class LargeFile:
    """A file to be read with `read`, before the walk goes on: then its descriptor is closed."""

    name: bytes
    executable: bool
    size: int
    path: bytes
    # What tells it from other files, and from what becomes of it; links have it in common.
    signature: Signature
    has_links: bool
    _descriptor: int

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes from `offset`, fewer only at its end. Raises `TreeError`."""
        wanted = min(length, self.size - offset)
        try:
            data = os.pread(self._descriptor, wanted, offset)
            while len(data) < wanted:
                more = os.pread(self._descriptor, wanted - len(data), offset + len(data))
                if not more:
                    raise TreeError(self.path, _CHANGED)
                data += more
        except OSError as error:
            raise unreadable(self.path, error) from error
        return data

    def check(self) -> None:
        """Raises `TreeError` if it is not what it was when it was opened."""
        if _signature(os.fstat(self._descriptor)) != self.signature:
            raise TreeError(self.path, _CHANGED)

    def close(self) -> None:
        os.close(self._descriptor)


Event: TypeAlias = OpenDirectory | CloseDirectory | Symlink | File | LargeFile

_CLOSED: Final = CloseDirectory()


def walk(path: bytes, most: int | None = None) -> Generator[Event, None, None]:
    """What is at `path`, and below it, as events; whoever stops early closes the generator.

    Raises `TreeError`, which names the file, for what no NAR can hold, or cannot be read, or
    changes meanwhile; and for a folder whose Directory is sure to take more than `most` bytes.
    """
    opened: list[_OpenDirectory] = []
    try:
        kind = _kind_at(path)
        if not stat.S_ISDIR(kind):
            yield from _leaf(kind, b"", path, path, None)
            return
        opened.append(_OpenDirectory(path, path, None, most))
        yield OpenDirectory(b"")
        while opened:
            directory = opened[-1]
            if not directory.names:
                directory.check()
                opened.pop().close()
                yield _CLOSED
                continue
            kind, name = directory.names.pop()
            inside = directory.path + b"/" + name
            if len(opened) >= MAX_LEVELS:
                raise TreeError(inside, f"is below {MAX_LEVELS} levels, more than a NAR can have")
            if kind == stat.S_IFDIR:
                opened.append(_OpenDirectory(inside, name, directory.descriptor, most))
                yield OpenDirectory(name)
            elif kind == stat.S_IFREG:
                # The most frequent by far, and so without another generator.
                file = _open_file(inside, name, name, directory.descriptor)
                if isinstance(file, File):
                    yield file
                else:
                    yield from _lent(file)
            else:
                yield from _leaf(kind, name, inside, name, directory.descriptor)
    finally:
        for directory in opened:
            directory.close()


class _OpenDirectory:
    """A directory that is being read: `names` are those to come, the next one last."""

    def __init__(self, path: bytes, name: bytes, parent: int | None, most: int | None) -> None:
        self.path = path
        try:
            self.descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        except OSError as error:
            raise _unopened(path, error) from error
        try:
            self._signature = _signature(os.fstat(self.descriptor))
            with os.scandir(self.descriptor) as entries:
                self.names = [(_kind(entry), os.fsencode(entry.name)) for entry in entries]
        except OSError as error:
            os.close(self.descriptor)
            raise unreadable(path, error) from error
        if most is not None and sum(_LEAST.get(kind, 0) + len(n) for kind, n in self.names) > most:
            # Before anything of it is read, and sent.
            os.close(self.descriptor)
            raise too_many(path, len(self.names), most)
        self.names.sort(key=lambda each: each[1], reverse=True)

    def check(self) -> None:
        if _signature(os.fstat(self.descriptor)) != self._signature:
            raise TreeError(self.path, _CHANGED)

    def close(self) -> None:
        os.close(self.descriptor)


def _leaf(
    kind: int, name: bytes, path: bytes, at: bytes, parent: int | None
) -> Iterator[Symlink | File | LargeFile]:
    """What is no directory; `at` is what to open, below `parent`."""
    if kind == stat.S_IFLNK:
        try:
            target = os.readlink(at, dir_fd=parent)
        except OSError as error:
            raise _unopened(path, error) from error
        yield Symlink(name, target)
    elif kind == stat.S_IFREG:
        file = _open_file(path, name, at, parent)
        yield from [file] if isinstance(file, File) else _lent(file)
    else:
        raise TreeError(path, f"is {_KINDS.get(kind, 'of no kind')}, which no store path can hold")


def _open_file(path: bytes, name: bytes, at: bytes, parent: int | None) -> File | LargeFile:
    """A small one is closed again; whoever gets a large one closes it."""
    try:
        # Should it have become a fifo, opening does not wait for whoever writes into it.
        descriptor = os.open(at, _FILE_FLAGS, dir_fd=parent)
    except OSError as error:
        raise _unopened(path, error) from error
    keep = False
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise TreeError(path, _CHANGED)
        executable = bool(before.st_mode & stat.S_IXUSR)
        size = before.st_size
        if size > SMALL:
            keep = True
            return LargeFile(
                *(name, executable, size, path, _signature(before)),
                has_links=before.st_nlink > 1,
                _descriptor=descriptor,
            )
        contents = _read(descriptor, size)
        if len(contents) != size or _signature(os.fstat(descriptor)) != _signature(before):
            raise TreeError(path, _CHANGED)
        return File(name, executable, contents)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        if not keep:
            os.close(descriptor)


def _read(descriptor: int, size: int) -> bytes:
    """All there is, and a byte more than `size` at most."""
    data = os.read(descriptor, size + 1)
    while len(data) < size and (more := os.read(descriptor, size + 1 - len(data))):
        data += more
    return data


def _lent(file: LargeFile) -> Iterator[LargeFile]:
    """The file, for as long as the walk waits here."""
    try:
        yield file
        file.check()
    finally:
        file.close()


def _kind(entry: os.DirEntry[str]) -> int:
    """As the directory says, without looking at the file itself where that is not needed."""
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


def _kind_at(path: bytes) -> int:
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError as error:
        raise unreadable(path, error) from error


def _signature(found: os.stat_result) -> Signature:
    return (
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _unopened(path: bytes, error: OSError) -> TreeError:
    if error.errno in _SWAPPED:
        return TreeError(path, _CHANGED)
    return unreadable(path, error)


def too_many(path: bytes, entries: int, most: int) -> TreeError:
    return TreeError(
        path,
        f"is a folder of {entries} entries, which make a Directory above the {most} bytes that the "
        "store takes: split it, or import it on a composition",
    )


def unreadable(path: bytes, error: OSError) -> TreeError:
    return TreeError(path, f"cannot be read: {error.strerror or type(error).__name__}")
