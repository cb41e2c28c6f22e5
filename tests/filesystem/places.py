"""Trees on disk, stores to import them into, and the real Nix to compare with."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.nar.trees import File, Link, Tree, deep, write_out
from tests.support.nix_client import environment
from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Digest, Directory, DirectoryNode
from tvixstore.directory import MemoryDirectoryService
from tvixstore.filesystem import Importer, TreeProgress
from tvixstore.pathinfo import MemoryPathInfoService
from tvixstore.pools import Pools
from tvixstore.tree import Content

# Longer than what is read in one go, and of several chunks.
LARGE = bytes(range(256)) * 10_000

HAND_MADE: list[Tree] = [
    {},
    File(b""),
    File(b"#!/bin/sh\n", True),
    Link(b"/nowhere/at/all"),
    Link(b"\xff\xfe"),
    {b"A": File(b""), b"a": File(b"12345678"), b"a-b": {}, b"a.b": {}, b"ab": {}},
    {b"\xff\n": File(b"\0"), b"\x01": Link(b"\x80"), "é".encode(): {b"\xfe": File(b"x", True)}},
    {b"n" * 255: File(b"long"), b"l": Link(b"t" * 4000)},
    {b"big": File(LARGE), b"again": File(LARGE, True), b"d": {b"small": File(LARGE[:100])}},
    File(LARGE, True),
    deep(60, File(b"bottom")),
]


class Shelf:
    """Stores in memory that know what was put."""

    def __init__(self, pools: Pools) -> None:
        self.blobs = NotingBlobs()
        self.content = Content(self.blobs, MemoryDirectoryService())
        self.path_infos = MemoryPathInfoService(self.content)
        self.progress: list[TreeProgress] = []
        self.importer = Importer(
            self.content, self.path_infos, pools, on_progress=self.progress.append
        )

    async def paths(self) -> list[str]:
        return [str(info.store_path) async for info in self.path_infos.list()]


class NotingBlobs(MemoryBlobService):
    def __init__(self) -> None:
        super().__init__()
        self.put_digests: list[Digest] = []

    async def put_many(self, blobs: Sequence[bytes]) -> list[Digest]:
        digests = await super().put_many(blobs)
        self.put_digests += digests
        return digests


class Nix:
    """A store of its own below `folder`, whose paths begin with /nix/store all the same."""

    def __init__(self, folder: Path) -> None:
        self._store = folder / "store"
        folder.mkdir(exist_ok=True)
        self._environment = environment(folder)

    def run(self, *command: str | bytes | Path, data: bytes = b"") -> bytes:
        done = subprocess.run(
            command, input=data, capture_output=True, env=self._environment, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def add(self, *paths: bytes | Path) -> list[str]:
        command = ("nix-store", "--store", self._store, "--add")
        return self.run(*command, *paths).decode().split()

    def add_flat(self, path: bytes | Path) -> str:
        command = ("nix-store", "--store", self._store, "--add-fixed", "sha256")
        return self.run(*command, path).decode().strip()

    def dump(self, path: bytes | Path) -> bytes:
        return self.run("nix-store", "--dump", path)

    def hash(self, path: bytes | Path, form: str) -> str:
        return self.run("nix", "hash", "path", form, path).decode().strip()


class Places:
    """Makes trees below a folder, each by a name that no other one has."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._number = 0

    def make(self, tree: Tree) -> bytes:
        self._number += 1
        path = self._folder + b"/tree-%d" % self._number
        write_out(tree, path)
        return path


async def unfolding(content: Content) -> DirectoryNode:
    """A few Directories, each of them twice in the next: more than anybody can write down."""
    directory = Directory(())
    await content.directories.put(directory)
    for level in range(55):
        node = DirectoryNode(directory.digest, (2 << level) - 2)
        directory = Directory(((b"a", node), (b"b", node)))
        await content.directories.put(directory)
    return DirectoryNode(directory.digest, (2 << 55) - 2)


@contextmanager
def few_pools() -> Iterator[Pools]:
    pools = Pools(files=2, cpu=1, dns=1)
    try:
        yield pools
    finally:
        pools.close()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
