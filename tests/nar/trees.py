"""Small trees for NAR tests, and an encoder for them that shares nothing with the package."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hypothesis import strategies as st

from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.directory import MemoryDirectoryService
from tvixstore.nar import (
    CloseDirectory,
    Contents,
    Event,
    NarReader,
    OpenDirectory,
    Regular,
    Symlink,
)
from tvixstore.streams import BytesStream, ByteStream
from tvixstore.tree import Content


@dataclass(frozen=True)
class File:
    data: bytes
    executable: bool = False


@dataclass(frozen=True)
class Link:
    target: bytes


Tree: TypeAlias = "File | Link | dict[bytes, Tree]"


def _is_name(name: bytes) -> bool:
    return b"/" not in name and b"\0" not in name and name not in (b".", b"..")


_names = st.binary(min_size=1, max_size=12).filter(_is_name)
_utf8_names = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
    .map(str.encode)
    .filter(_is_name)
)
_targets = st.binary(min_size=1, max_size=20).filter(lambda target: b"\0" not in target)
_utf8_targets = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8
).map(str.encode)
_files = st.builds(File, st.binary(max_size=40), st.booleans())


def _trees(
    names: st.SearchStrategy[bytes], links: st.SearchStrategy[Link]
) -> st.SearchStrategy[Tree]:
    return st.recursive(
        _files | links,
        lambda children: st.dictionaries(names, children, max_size=4),
        max_leaves=12,
    )


trees: st.SearchStrategy[Tree] = _trees(_names, st.builds(Link, _targets))
utf8_trees: st.SearchStrategy[Tree] = _trees(_utf8_names, st.builds(Link, _utf8_targets))


def nar_of(tree: Tree) -> bytes:
    """The tree as a NAR, token by token as the format is described."""
    return _string(b"nix-archive-1") + _node(tree)


def _string(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data + bytes(-len(data) % 8)


def _node(tree: Tree) -> bytes:
    words = [b"(", b"type"]
    match tree:
        case File(data, executable):
            words += [b"regular", *([b"executable", b""] if executable else []), b"contents", data]
        case Link(target):
            words += [b"symlink", b"target", target]
        case dict():
            entries = b"".join(
                b"".join(map(_string, (b"entry", b"(", b"name", name, b"node")))
                + _node(child)
                + _string(b")")
                for name, child in sorted(tree.items())
            )
            return b"".join(map(_string, [*words, b"directory"])) + entries + _string(b")")
    return b"".join(map(_string, [*words, b")"]))


def tree_of(events: list[Event]) -> Tree:
    """What the events of a whole NAR tell."""
    root: dict[bytes, Tree] = {}
    above = [root]
    for event in events:
        match event:
            case OpenDirectory(name):
                inner: dict[bytes, Tree] = {}
                above[-1][name] = inner
                above.append(inner)
            case CloseDirectory():
                above.pop()
            case Symlink(name, target):
                above[-1][name] = Link(target)
            case Regular(name, _, executable, _, contents):
                above[-1][name] = File(contents, executable)
            case Contents(data):
                name, file = above[-1].popitem()
                assert isinstance(file, File)
                above[-1][name] = File(file.data + data, file.executable)
    return root[b""]


def read(nar: bytes, size: int | None = None) -> list[Event]:
    """All events of a NAR that is fed in pieces of `size`."""
    reader = NarReader()
    events: list[Event] = []
    for piece in cut(nar, size):
        reader.feed(piece)
        events += reader.events()
    reader.finish()
    return events


def cut(data: bytes, size: int | None = None) -> list[bytes]:
    size = size or max(1, len(data))
    return [data[start : start + size] for start in range(0, len(data), size)]


def source(nar: bytes, size: int | None = None) -> BytesStream:
    """The NAR as a stream of pieces of `size`."""
    return BytesStream(*cut(nar, size))


def deep(directories: int, leaf: Tree) -> Tree:
    """`leaf` below so many directories."""
    for _ in range(directories):
        leaf = {b"d": leaf}
    return leaf


class CountingBlobService(MemoryBlobService):
    """Remembers which blobs were read, and which streams and writers are open."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[Digest] = []

    async def open_read(
        self,
        digest: Digest,
        offset: int = 0,
        length: int | None = None,
        size: int | None = None,
    ) -> ByteStream | None:
        self.reads.append(digest)
        return await super().open_read(digest, offset, length, size)


def memory() -> Content:
    return Content(MemoryBlobService(), MemoryDirectoryService())


async def store(content: Content, tree: Tree) -> Node:
    """Puts the tree into castore, by itself and not by `ingest`."""
    match tree:
        case File(data, executable):
            return FileNode(await content.blobs.put(data), len(data), executable)
        case Link(target):
            return SymlinkNode(target)
        case dict():
            entries = [(name, await store(content, child)) for name, child in tree.items()]
            directory = Directory.of(entries)
            await content.directories.put(directory)
            return DirectoryNode(directory.digest, directory.size)


def write_out(tree: Tree, path: bytes) -> None:
    """Makes the tree in the file system."""
    match tree:
        case File(data, executable):
            with open(path, "xb") as file:
                file.write(data)
            os.chmod(path, 0o755 if executable else 0o644)
        case Link(target):
            os.symlink(target, path)
        case dict():
            os.mkdir(path)
            for name, child in tree.items():
                write_out(child, os.path.join(path, name))


def read_in(path: bytes) -> Tree:
    """The tree that is in the file system."""
    if os.path.islink(path):
        return Link(os.readlink(path))
    if os.path.isdir(path):
        return {name: read_in(os.path.join(path, name)) for name in os.listdir(path)}
    return File(Path(os.fsdecode(path)).read_bytes(), os.access(path, os.X_OK))
