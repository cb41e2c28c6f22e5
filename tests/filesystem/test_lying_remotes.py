"""Trees of a daemon that lies: each way to look into one ends with an error that names what is
wrong, and nothing is written but below the folder that was named."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.rpc.client.scripted import Answer, Script, looks_up, says, scripted
from tests.rpc.client.support import fills_in
from tvixstore.castore import Digest, Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.castore.wire import encode_entry
from tvixstore.errors import CorruptData, InvalidData
from tvixstore.filesystem import Extractor, Inside, TreeReader
from tvixstore.nix import StorePath
from tvixstore.pathinfo import PathInfo
from tvixstore.pools import Pools
from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, GrpcPathInfoService
from tvixstore.rpc.methods import GET_DIRECTORY, GET_PATH_INFO, READ_BLOB, STAT_BLOB
from tvixstore.tree import Content

if TYPE_CHECKING:
    from grpclib.server import Stream

PATH = StorePath(bytes(range(20)), "app")
DATA = b"ten bytes."
FILE = FileNode(Digest.of(DATA), len(DATA))
OUT = SymlinkNode(b"../../outside")


@dataclass(frozen=True)
class Raw:
    """A Directory as a liar writes it."""

    wire: bytes

    @property
    def digest(self) -> Digest:
        return Digest.of(self.wire)


def raw(*entries: tuple[bytes, Node]) -> Raw:
    tags = {DirectoryNode: b"\x0a", FileNode: b"\x12", SymlinkNode: b"\x1a"}
    wire = b""
    for name, node in entries:
        entry = encode_entry(name, node)
        # Within a Directory as within a Node, whose fields are the same.
        assert entry[:1] == tags[type(node)]
        wire += entry
    return Raw(wire)


@dataclass
class Liar:
    reader: TreeReader
    content: Content
    pools: Pools
    folder: Path

    async def ls(self, *, recursive: bool = False) -> None:
        found = self.reader.list(Inside.parse(str(PATH)), recursive=recursive)
        async with aclosing(found):
            async for _ in found:
                pass

    async def ls_recursive(self) -> None:
        await self.ls(recursive=True)

    async def cat(self) -> None:
        stream = await self.reader.open_file(Inside.parse(f"{PATH}/file"))
        await stream.read_all()

    async def nar(self) -> None:
        await (await self.reader.open_nar(Inside.parse(str(PATH)))).read_all()

    async def extract(self) -> None:
        node = await self.reader.find(Inside.parse(str(PATH)))
        await Extractor(self.content, self.pools).put(node, self.folder / "in/here/out")


WAYS: dict[str, Callable[[Liar], Awaitable[None]]] = {
    "ls": Liar.ls,
    "ls -R": Liar.ls_recursive,
    "cat": Liar.cat,
    "nar": Liar.nar,
    "extract": Liar.extract,
}


@asynccontextmanager
async def liar(
    folder: Path,
    pools: Pools,
    root: Digest,
    directories: Mapping[Digest, list[Directory | Raw]],
    blob: bytes | Answer = DATA,
) -> AsyncIterator[Liar]:
    """What the daemon says by digest; it gives `blob` for any, or answers so."""
    (folder / "in/here").mkdir(parents=True)
    info = PathInfo(store_path=PATH, nar_sha256=bytes(32), nar_size=1, node=DirectoryNode(root, 1))
    whole = [each for said in directories.values() for each in said]

    async def directory(stream: Stream[Any, Any]) -> None:
        singly = looks_up(directories, lambda request: request.digest)
        await singly(cast("Stream[Any, Any]", _Recursive(stream, whole)))

    script: Script = {
        GET_PATH_INFO: says(info),
        GET_DIRECTORY: directory,
        STAT_BLOB: says([]),
        READ_BLOB: says(blob) if isinstance(blob, bytes) else blob,
    }
    async with scripted(script) as (peer, _), fills_in(folder / "spool") as fills:
        content = Content(GrpcBlobService(peer), GrpcDirectoryService(peer))
        reader = TreeReader(GrpcPathInfoService(peer, content, fills), content)
        before = _everything(folder)
        yield Liar(reader, content, pools, folder)
        new = _everything(folder) - before
        assert all(name.startswith(b"in/here/out") for name in new), new


class _Recursive:
    """A call that is answered with all there is, if that is what was asked for."""

    def __init__(self, stream: Stream[Any, Any], whole: list[Directory | Raw]) -> None:
        self._stream = stream
        self._whole = whole
        self._recursive = False

    async def recv_message(self) -> object:
        request = await self._stream.recv_message()
        assert request is not None
        self._recursive = request.recursive
        return request

    async def send_message(self, reply: object) -> None:
        for each in self._whole if self._recursive else [reply]:
            await self._stream.send_message(each)


def _everything(folder: Path) -> set[bytes]:
    top = os.fsencode(folder)
    return {
        os.path.relpath(os.path.join(above, name), top)
        for above, folders, files in os.walk(top)
        for name in [*folders, *files]
    }


LIES = {
    "dots": raw((b"..", FILE)),
    "dot": raw((b".", FILE)),
    "a slash": raw((b"a/b", FILE)),
    "an absolute name": raw((b"/tmp/outside", FILE)),
    "no name": raw((b"", FILE)),
    "a NUL": raw((b"file\0", FILE)),
    "out of order": raw((b"file", FILE), (b"a", FILE)),
    "twice": raw((b"file", FILE), (b"file", FILE)),
    "a link and what is behind it": raw((b"file", DirectoryNode(FILE.digest, 1)), (b"file", OUT)),
    "a link with a NUL": raw((b"file", FILE), (b"link", SymlinkNode(b"x"))),
    "cut off": Raw(raw((b"file", FILE)).wire[:-1]),
}
LIES["a link with a NUL"] = Raw(LIES["a link with a NUL"].wire[:-1] + b"\0")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lie", LIES)
async def test_a_directory_that_is_none_is_named_and_nothing_is_made_of_it(
    tmp_path: Path, pools: Pools, lie: str, way: str
) -> None:
    said = LIES[lie]
    async with liar(tmp_path, pools, said.digest, {said.digest: [said]}) as liar_:
        with pytest.raises(CorruptData, match="what came is not valid"):
            await WAYS[way](liar_)
        assert not (tmp_path / "in/here/out").exists()


@pytest.mark.parametrize("way", WAYS)
async def test_a_directory_of_another_digest_is_named(
    tmp_path: Path, pools: Pools, way: str
) -> None:
    said = Directory.of([(b"file", FILE)])
    root = Digest.of(b"another")
    async with liar(tmp_path, pools, root, {root: [said]}) as liar_:
        with pytest.raises(CorruptData, match=str(said.digest)):
            await WAYS[way](liar_)


@pytest.mark.parametrize("way", ["cat", "nar", "extract"])
@pytest.mark.parametrize("blob", [b"", b"other data", DATA + b"!", DATA * 200_000])
async def test_a_blob_that_is_another_one_is_named(
    tmp_path: Path, pools: Pools, way: str, blob: bytes
) -> None:
    said = Directory.of([(b"file", FILE)])
    async with liar(tmp_path, pools, said.digest, {said.digest: [said]}, blob) as liar_:
        with pytest.raises(CorruptData):
            await WAYS[way](liar_)
        assert not (tmp_path / "in/here/out/file").exists()


@pytest.mark.parametrize("way", ["cat", "nar", "extract"])
@pytest.mark.parametrize("size", [0, 9, 11, 3 << 20, 1 << 62])
async def test_a_file_of_another_size_is_named(
    tmp_path: Path, pools: Pools, way: str, size: int
) -> None:
    said = Directory.of([(b"file", FileNode(FILE.digest, size))])
    async with liar(tmp_path, pools, said.digest, {said.digest: [said]}) as liar_:
        with pytest.raises(CorruptData, match="bytes long|above the size|says"):
            await WAYS[way](liar_)
        assert not (tmp_path / "in/here/out/file").exists()


@pytest.mark.parametrize("way", ["ls -R", "nar", "extract"])
async def test_a_tree_that_goes_down_without_end_is_no_path(
    tmp_path: Path, pools: Pools, way: str
) -> None:
    chain = [Directory.of([(b"file", FILE)])]
    for _ in range(5000):
        below = chain[-1]
        chain.append(Directory.of([(b"d", DirectoryNode(below.digest, below.size))]))
    said: dict[Digest, list[Directory | Raw]] = {each.digest: [each] for each in reversed(chain)}
    async with liar(tmp_path, pools, chain[-1].digest, said) as liar_:
        with pytest.raises(InvalidData, match="levels"):
            await WAYS[way](liar_)


async def endless(stream: Any) -> None:
    await stream.recv_message()
    while True:
        await stream.send_message(bytes(1 << 18))


@pytest.mark.parametrize("way", ["cat", "nar", "extract"])
async def test_a_blob_without_end_is_left_once_it_is_longer_than_its_file(
    tmp_path: Path, pools: Pools, way: str
) -> None:
    said = Directory.of([(b"file", FileNode(FILE.digest, 2 << 20))])
    async with liar(tmp_path, pools, said.digest, {said.digest: [said]}, endless) as liar_:
        with pytest.raises(CorruptData, match="bytes long|is longer than"):
            await WAYS[way](liar_)
        assert not (tmp_path / "in/here/out/file").exists()
