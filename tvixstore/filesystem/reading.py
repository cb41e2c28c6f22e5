"""A tree on disk as castore nodes and as a NAR, in one pass: the part of an import for threads.

What comes of it is handed over in batches. Whoever stores them can be asked at any moment to leave
it at that: nothing here changes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from blake3 import blake3

from tvixstore.castore import (
    EMPTY_DIGEST,
    Digest,
    Directory,
    DirectoryNode,
    Entry,
    FileNode,
    Node,
    SizeRule,
    SymlinkNode,
)
from tvixstore.errors import TreeError
from tvixstore.filesystem.nar_digest import NarDigest
from tvixstore.filesystem.walk import Event, File, LargeFile, Signature, too_many, walk
from tvixstore.nar import CloseDirectory, NarIdentity, OpenDirectory, Symlink

# A batch is full at so many nodes, or bytes of small files.
BATCH_NODES: Final = 1000
BATCH_BYTES: Final = 4 << 20


@dataclass(slots=True)
class Batch:
    """A part of a tree: what is to be stored of it, children before parents."""

    # Small files of any digest once a batch.
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    directories: list[Directory] = field(default_factory=list)
    files: int = 0
    size: int = 0
    # A large file, at which the batch ends. The tree is not gone on with before `pass_file`.
    file: LargeFile | None = None
    # Nothing comes after it.
    last: bool = False


class TreeReading:
    """Reads what is at `path`. For one thread at a time; to be closed.

    With `flat` it has to be a file, the contents of which are hashed on the way too. It counts as
    not executable then: the address does not say, and a path is to have one NAR. A folder whose
    Directory is larger than `most` bytes is refused.
    """

    def __init__(
        self, path: bytes, sizes: SizeRule, *, flat: bool = False, most: int | None = None
    ) -> None:
        self.path = path
        self._sizes = sizes
        self._most = most
        self._events = walk(path, most)
        self._nar = NarDigest()
        self._flat = hashlib.sha256() if flat else None
        # The directories that are open, each with its name. The first is none: its entry is the
        # root.
        self._open: list[tuple[bytes, list[Entry]]] = [(b"", [])]
        # Large files of several names, each read before.
        self._links: dict[Signature, Digest] = {}

    def batch(self) -> Batch:
        """The next part. Raises `TreeError`."""
        batch = Batch()
        for _ in range(BATCH_NODES):
            event = next(self._events, None)
            if self._flat is not None:
                event = self._flattened(event)
            match event:
                case File():
                    self._take_file(batch, event)
                    if batch.size >= BATCH_BYTES:
                        break
                case LargeFile():
                    self._nar.open_file(event.name, event.executable, event.size)
                    batch.file = event
                    batch.files += 1
                    break
                case OpenDirectory(name):
                    self._nar.open_directory(name)
                    self._open.append((name, []))
                case CloseDirectory():
                    self._nar.close_directory()
                    self._close_directory(batch)
                case Symlink(name, target):
                    self._nar.symlink(name, target)
                    self._enter(name, SymlinkNode(target))
                case None:
                    batch.last = True
                    break
        return batch

    def known(self, file: LargeFile) -> Digest | None:
        """The digest of that file, should it have been read under another name."""
        return self._links.get(file.signature)

    def read(self, file: LargeFile, offset: int, length: int) -> bytes:
        """The next bytes of a large file, hashed for the NAR."""
        data = file.read(offset, length)
        self._nar.contents(data)
        if self._flat is not None:
            self._flat.update(data)
        return data

    def hash(
        self, file: LargeFile, offset: int, length: int, update: Callable[[bytes], object]
    ) -> int:
        """The same, handed to `update` in parts; where that came to."""
        end = min(file.size, offset + length)
        while offset < end:
            data = self.read(file, offset, min(1 << 20, end - offset))
            update(data)
            offset += len(data)
        return offset

    def pass_file(self, file: LargeFile, digest: Digest) -> None:
        """After all of a large file was read, which has that digest."""
        self._nar.close_file()
        self._enter(file.name, FileNode(digest, file.size, file.executable))
        if file.has_links:
            self._links[file.signature] = digest

    def finish(self) -> tuple[Node, NarIdentity, bytes | None]:
        """After the last batch: the root, its NAR, and the SHA-256 of a flat file's contents."""
        ((_, root),) = self._open[0][1]
        return root, self._nar.finish(), None if self._flat is None else self._flat.digest()

    def close(self) -> None:
        self._events.close()

    def _take_file(self, batch: Batch, file: File) -> None:
        contents = file.contents
        self._nar.file(file.name, file.executable, contents)
        if self._flat is not None:
            self._flat.update(contents)
        digest = EMPTY_DIGEST
        if contents:
            digest = Digest(blake3(contents).digest())
            batch.blobs[digest] = contents
        self._enter(file.name, FileNode(digest, len(contents), file.executable))
        batch.files += 1
        batch.size += len(contents)

    def _close_directory(self, batch: Batch) -> None:
        name, entries = self._open.pop()
        directory = Directory(tuple(entries))
        if self._most is not None and len(directory.wire) > self._most:
            above = [each for each, _ in self._open if each]
            raise too_many(b"/".join([self.path, *above, name]), len(entries), self._most)
        self._enter(name, DirectoryNode(directory.digest, self._sizes.size_of(directory)))
        batch.directories.append(directory)

    def _enter(self, name: bytes, node: Node) -> None:
        self._open[-1][1].append((name, node))

    def _flattened(self, event: Event | None) -> Event | None:
        match event:
            case File():
                return event._replace(executable=False)
            case LargeFile():
                return replace(event, executable=False)
            case None:
                return None
        raise TreeError(self.path, "is no file: only a file can be taken as flat")
