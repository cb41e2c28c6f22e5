"""A binary cache in a folder: what `nix copy --to file:///path` makes."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tvixstore.errors import ConfigError, CorruptData, Unavailable
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.nix.store_dir import CACHE_INFO, StoreDirCheck
from tvixstore.pathinfo.nix.upstream import MAX_NARINFO_BYTES, Body, Resume, Upstream
from tvixstore.pools import Pool

if TYPE_CHECKING:
    from tvixstore.pathinfo.nix.settings import UpstreamSettings
    from tvixstore.pools import Pools

_SLICE = 256 << 10
_THREADS = 4
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)


class FileUpstream(Upstream):
    """The cache in the folder that `settings.url` (`file:///…`) names.

    A file that is not there is absent; a folder that is not there (not mounted?) is unknown.
    """

    def __init__(self, settings: UpstreamSettings, pools: Pools) -> None:
        self.name = settings.name
        self._root = folder_of(settings)
        # Not the composition's: on a mount whose server is gone, calls never return, and those
        # threads would be missing where the store itself is read and written.
        self._files = Pool(f"folder-{settings.name}", _THREADS)
        self._store_dir = StoreDirCheck(settings.name, lambda: self._document(CACHE_INFO))

    def __repr__(self) -> str:
        return f"{self.name} file://{self._root}"

    async def narinfo(self, path_hash: bytes) -> str | None:
        return await self._document(f"{nixbase32.encode(path_hash)}.narinfo")

    async def open_nar(self, url: str, resume: Resume | None = None) -> Body | None:
        relative = self._inside(url)
        # The thread leaves the file here, so that it is closed even if we are cancelled meanwhile.
        opened: list[FileBody] = []
        try:
            await self._files.run(self._open_body, relative, resume, opened)
        except BaseException:
            for body in opened:
                await body.aclose()
            raise
        return opened[0] if opened else None

    async def check_store_dir(self) -> None:
        await self._store_dir.check()

    async def aclose(self) -> None:
        await self._store_dir.aclose()
        self._files.close(wait=False)

    def unknown(self, relative: str, error: OSError) -> Unavailable:
        """`error` at that file, as ours."""
        where = f"{self.name}: {self._root / relative}"
        return Unavailable(f"{where}: {error.strerror or type(error).__name__}")

    def _inside(self, url: str) -> str:
        """The file that a narinfo's URL means, which has to be one of the cache's own."""
        relative = url.removeprefix(f"file://{self._root}/").lstrip("/")
        if not relative or ".." in relative.split("/") or "\0" in relative:
            raise CorruptData(f"{self.name}: a NAR's URL leads out of the cache: {url!r}")
        if _ELSEWHERE.match(relative):
            raise CorruptData(f"{self.name}: a NAR's URL is not of this cache: {relative!r}")
        return relative

    async def _document(self, relative: str) -> str | None:
        # Who gives up is let go, be it that the thread never returns; it closes what it opened.
        data = await self._files.abandon(self._read, relative)
        try:
            return None if data is None else data.decode()
        except UnicodeDecodeError as error:
            raise CorruptData(f"{self.name}: {relative} is not UTF-8") from error

    def _open_body(self, relative: str, resume: Resume | None, opened: list[FileBody]) -> None:
        """In a thread."""
        descriptor = self._open(relative)
        if descriptor is not None:
            opened.append(FileBody(self, self._files, descriptor, relative, resume))

    def _read(self, relative: str) -> bytes | None:
        """In a thread: a small file, whole."""
        descriptor = self._open(relative)
        if descriptor is None:
            return None
        with open(descriptor, "rb", closefd=True) as file:
            try:
                data = file.read(MAX_NARINFO_BYTES + 1)
            except OSError as error:
                raise self.unknown(relative, error) from error
        if len(data) > MAX_NARINFO_BYTES:
            raise CorruptData(f"{self.name}: {relative} is longer than {MAX_NARINFO_BYTES} bytes")
        return data

    def _open(self, relative: str) -> int | None:
        """In a thread: a descriptor, or `None` if there is no such file."""
        try:
            # A FIFO would block us until somebody writes to it.
            descriptor = os.open(self._root / relative, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self._root.is_dir():
                raise Unavailable(f"{self.name}: there is no folder {self._root}") from error
            return None
        except OSError as error:
            raise self.unknown(relative, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Unavailable(f"{self.name}: {self._root / relative} is not a file")
        return descriptor


class FileBody(Body):
    """An open file, read a slice at a time."""

    def __init__(
        self,
        upstream: FileUpstream,
        files: Pool,
        descriptor: int,
        relative: str,
        resume: Resume | None,
    ) -> None:
        status = os.fstat(descriptor)
        self.length = status.st_size
        self.validator = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
        resumes = resume is not None and resume.validator == self.validator
        self.offset = resume.offset if resume is not None and resumes else 0
        self.encodings = ()
        self.url = relative
        self._upstream = upstream
        self._files = files
        self._descriptor: int | None = descriptor
        self._position = self.offset

    async def __anext__(self) -> bytes:
        if self._descriptor is None:
            raise StopAsyncIteration
        try:
            data = await self._files.run(os.pread, self._descriptor, _SLICE, self._position)
        except OSError as error:
            raise self._upstream.unknown(self.url, error) from error
        self._position += len(data)
        if data:
            return data
        if self._position != self.length:
            raise Unavailable(
                f"{self._upstream.name}: {self.url} ended after {self._position} bytes "
                f"of {self.length}"
            )
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def folder_of(settings: UpstreamSettings) -> Path:
    parts = urlsplit(settings.url)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path.is_absolute():
        raise ConfigError(f"{settings.name}: its url is not file:///FOLDER")
    return path
