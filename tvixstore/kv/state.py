"""The state directory: who may use it, which version wrote it, what belongs where in it.

format     the version of everything below
lock       held by the process that uses the directory; its pid is inside
index/     LMDB: tables of blobs, chunks, Directories, path infos, narinfos
chunks/    larger chunks, one a file
spool/     downloads under way; emptied at start
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Self

from tvixstore.errors import ConfigError, StateInUse
from tvixstore.kv.files import sync_directory
from tvixstore.log import Logger

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 2
# Written by versions that did not count references; `outdated` says so.
_BEFORE = 1
_FORMAT = "tvixstore state, version "
# Wide enough for any pid, so that writing it never needs a block that a full disk has not.
_PID_WIDTH = 20

_log = Logger(__name__)


class StateDirectory:
    """The directory at `path`, opened for this process alone until `close`.

    Opening blocks for some milliseconds. It raises `ConfigError`, one line that says what to do,
    for a directory that cannot be made or written, that another process uses, or that another
    version wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = path / "index"
        self.chunks = path / "chunks"
        self.spool = path / "spool"
        self._lock: int | None = None
        # Whether what is inside has to be brought to this version, before `is_current` is called.
        self.outdated = False
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            self._check_format()
            for directory in (self.index, self.chunks, self.spool):
                directory.mkdir(exist_ok=True)
            self._check_writable()
            self._empty_spool()
        except OSError as error:
            self.close()
            place = error.filename or path
            raise ConfigError(
                f"state directory {path}: {error.strerror} ({place}): "
                "name a directory that this user can write to"
            ) from error
        except ConfigError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"state {self.path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trouble(self) -> str | None:
        """Why the state cannot be used any more, if it cannot: it was moved, or unmounted."""
        for directory in (self.index, self.chunks, self.spool):
            if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                return f"{directory} is gone, or cannot be written to"
        return None

    def close(self) -> None:
        """Lets the next process in. The lock file stays: removing it would race with that one."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> int:
        path = self.path / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(descriptor, f"{os.getpid():<{_PID_WIDTH}}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, _PID_WIDTH, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StateInUse(
                f"state directory {self.path} is in use by process {holder or '(unknown)'} "
                f"(lock file {path}): stop that one, or give this one another state directory"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check_format(self) -> None:
        path = self.path / "format"
        try:
            text = path.read_bytes()[:200].decode("utf-8", "replace").strip()
        except FileNotFoundError:
            self._write_format(path)
            return
        self.outdated = text == f"{_FORMAT}{_BEFORE}"
        if text != f"{_FORMAT}{VERSION}" and not self.outdated:
            raise ConfigError(
                f"state directory {self.path} was written by another version: {path} says "
                f"{text!r}, this one reads {f'{_FORMAT}{VERSION}'!r}: run the version that wrote "
                "it, or name an empty directory (it fills again from the substituters)"
            )

    def is_current(self) -> None:
        """What is inside has been brought to this version: from now on older ones refuse it."""
        self._write_version(self.path / "format")
        self.outdated = False

    def _write_format(self, path: Path) -> None:
        left = [place for place in (self.index, self.chunks) if place.exists()]
        if left:
            raise ConfigError(
                f"state directory {self.path} has {left[0].name}/ but no format file: "
                "it is not ours, or damaged: name an empty directory"
            )
        self._write_version(path)

    def _write_version(self, path: Path) -> None:
        new = path.with_name("format.new")
        with new.open("w") as file:
            file.write(f"{_FORMAT}{VERSION}\n")
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        sync_directory(self.path)

    def _check_writable(self) -> None:
        for directory in (self.path, self.index, self.chunks, self.spool):
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
            if os.statvfs(directory).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(directory))

    def _empty_spool(self) -> None:
        """Removes what a killed process left; whatever is not a file of ours is left alone."""
        with os.scandir(self.spool) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                    os.unlink(entry.path)
                else:
                    _log.warning("spool.foreign_entry", path=entry.path)
