"""Directories that wait for their archive to turn out whole: in memory, and beyond that in a file.

None may be stored before the last byte of the NAR was read and found valid, and an archive of a
million files has more of them than should be held in memory meanwhile.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import BinaryIO, TypeVar, TypeVarTuple, Unpack

from tvixstore.castore import Directory, decode_directory
from tvixstore.errors import StorageFull
from tvixstore.nar.writer import U64
from tvixstore.pools import Pool, Pools

# Entries held in memory, at some 500 bytes each; written out they are a batch of about 1 MiB.
MOST_ENTRIES = 20_000

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class DirectoryShelf:
    """Takes Directories with `add`, gives them back with `batches`, in order. To be closed."""

    def __init__(self, pools: Pools | None, directory: Path | None = None) -> None:
        # Where the file goes; the system's place for temporary files by default.
        self._directory = directory
        self._files_pool = None if pools is None else pools.files
        self._cpu_pool = None if pools is None else pools.cpu
        self._held: list[Directory] = []
        self._held_entries = 0
        self._file: BinaryIO | None = None
        # The lengths of the batches in the file.
        self._lengths: list[int] = []

    async def add(self, directory: Directory) -> None:
        """Raises `StorageFull` if the temporary file cannot be written."""
        self._held.append(directory)
        self._held_entries += 1 + len(directory.entries)
        if self._held_entries >= MOST_ENTRIES:
            held, self._held, self._held_entries = self._held, [], 0
            try:
                await in_pool(self._files_pool, self._write_out, held)
            except OSError as error:
                raise StorageFull(f"no room for the Directories of a large NAR: {error}") from error

    async def batches(self) -> AsyncGenerator[list[Directory], None]:
        """Everything that was added."""
        if self._file is not None:
            await in_pool(self._files_pool, self._file.seek, 0)
            for length in self._lengths:
                data = await in_pool(self._files_pool, self._file.read, length)
                yield await in_pool(self._cpu_pool, _decode, data)
        if self._held:
            yield self._held

    def close(self) -> None:
        """Forgets everything."""
        self._held = []
        if self._file is not None:
            self._file.close()

    def _write_out(self, directories: list[Directory]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="nar-", dir=self._directory)
        data = _encode(directories)
        self._file.write(data)
        self._lengths.append(len(data))


async def in_pool(
    pool: Pool | None,
    function: Callable[[Unpack[Arguments]], Result],
    *arguments: *Arguments,
) -> Result:
    """Calls `function` in a thread, or right here where there are none."""
    if pool is None:
        return function(*arguments)
    return await pool.run(function, *arguments)


def _encode(directories: list[Directory]) -> bytes:
    return b"".join(
        part
        for directory in directories
        for part in (U64.pack(len(directory.wire)), directory.wire)
    )


def _decode(data: bytes) -> list[Directory]:
    directories = []
    position = 0
    while position < len(data):
        start = position + U64.size
        position = start + U64.unpack_from(data, position)[0]
        directories.append(decode_directory(data[start:position]))
    return directories
