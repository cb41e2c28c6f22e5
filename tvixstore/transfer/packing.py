"""A NAR on its way into a binary cache: compressed into a file, and hashed on both sides."""

from __future__ import annotations

import hashlib
import lzma
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol, Self

import zstandard

from tvixstore.compression import decoder
from tvixstore.errors import CorruptData
from tvixstore.kv.files import storage_error
from tvixstore.nix import NixHash, nixbase32
from tvixstore.pathinfo import Description
from tvixstore.pathinfo.nix.trust import Proof
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream
from tvixstore.transfer.watcher import Meter

Compression = Literal["none", "zstd", "xz"]

# What is behind `.nar` in the names of files.
SUFFIXES: Final[dict[Compression, str]] = {"none": "", "zstd": ".zst", "xz": ".xz"}
# One hop to a thread takes so many bytes of a NAR.
_SLICE: Final = 1 << 20
_READ: Final = 256 << 10
_LEVEL: Final = 3
# How a file is called while it is being written.
INCOMING: Final = ".incoming-"


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(compression: Compression) -> _Compressor:
    match compression:
        case "none":
            return _Plain()
        case "zstd":
            made: _Compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
            return made
        case "xz":
            return lzma.LZMACompressor()


@dataclass(frozen=True, slots=True)
class Packed:
    """A NAR in the file `path`, which is gone when this is left, unless it was moved."""

    path: Path
    compression: Compression
    file_hash: NixHash
    size: int

    @property
    def url(self) -> str:
        """Where it belongs in a cache."""
        return f"nar/{nixbase32.encode(self.file_hash.digest)}.nar{SUFFIXES[self.compression]}"

    def prove(self, proof: Proof) -> None:
        """Holds the NAR against `proof`, which raises `CorruptData`. Blocks."""
        proof(self._unpacked())

    def _unpacked(self) -> Iterator[bytes]:
        undo = decoder(self.compression, ())
        with self.path.open("rb") as file:
            while data := file.read(_READ):
                yield from undo.feed(data)
        undo.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)


async def pack(
    nar: ByteStream,
    description: Description,
    compression: Compression,
    folder: Path,
    pools: Pools,
    meter: Meter,
) -> Packed:
    """Writes `nar` into a file in `folder`; closes it.

    Raises `CorruptData` if it is not the one that `description` promises; no file stays then.
    """
    async with nar:
        packing = _Packing(folder, compression)
        try:
            await pools.files.run(packing.open)
            parts: list[bytes] = []
            held = 0
            async for part in nar:
                parts.append(part)
                held += len(part)
                if held >= _SLICE:
                    await pools.cpu.run(packing.take, parts)
                    meter.sent(held)
                    parts, held = [], 0
            await pools.cpu.run(packing.take, parts)
            meter.sent(held)
            return await pools.cpu.run(packing.finish, description)
        except BaseException:
            packing.drop()
            raise


class _Packing:
    """One file being written. All of it blocks: in threads."""

    def __init__(self, folder: Path, compression: Compression) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._compression: Compression = compression
        self._compressor = _compressor(compression)
        self._nar = hashlib.sha256()
        self._packed = hashlib.sha256()
        self._nar_size = 0
        self._size = 0

    def open(self) -> None:
        try:
            descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=INCOMING)
        except OSError as error:
            raise storage_error(error, self._folder) from error
        self._path = Path(name)
        self._file = open(descriptor, "wb")

    def take(self, parts: list[bytes]) -> None:
        for part in parts:
            self._nar.update(part)
            self._nar_size += len(part)
            self._write(self._compressor.compress(part))

    def finish(self, description: Description) -> Packed:
        if (self._nar_size, self._nar.digest()) != (description.nar_size, description.nar_sha256):
            raise CorruptData(
                f"{description.store_path}: the NAR that came has {self._nar_size} bytes with "
                f"sha256 {self._nar.hexdigest()}, not {description.nar_size} with "
                f"{description.nar_sha256.hex()}"
            )
        self._write(self._compressor.flush())
        assert self._file is not None and self._path is not None, "it was opened"
        try:
            # As anybody's file: what made it private was its being temporary.
            os.fchmod(self._file.fileno(), 0o644)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise storage_error(error, self._folder) from error
        file_hash = NixHash("sha256", self._packed.digest())
        return Packed(self._path, self._compression, file_hash, self._size)

    def drop(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        assert self._file is not None, "it was opened"
        self._packed.update(data)
        self._size += len(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise storage_error(error, self._folder) from error
