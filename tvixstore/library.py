"""The store as a library: a composition, opened in another program's event loop."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

from tvixstore.blob import BlobService
from tvixstore.castore import SizeRule
from tvixstore.compose import Config, load_document, load_file, load_text
from tvixstore.directory import DirectoryService
from tvixstore.filesystem import (
    Claims,
    Extractor,
    Found,
    Importer,
    Inside,
    NarAdder,
    OnProgress,
    TreeReader,
    nobody,
)
from tvixstore.nix import KeyRing, PublicKey, StorePath
from tvixstore.pathinfo import PathInfo, PathInfoService
from tvixstore.pools import Pools
from tvixstore.streams import ByteStream
from tvixstore.transfer import Trust
from tvixstore.tree import Content

if TYPE_CHECKING:
    from os import PathLike

# A store path, or what is inside of one, as `/nix/store/<32 digits>-<name>/bin/hello`.
Place: TypeAlias = "StorePath | str | bytes"


@dataclass(frozen=True, slots=True)
class Store:
    """The roots of a composition that is open; they are closed with it, and not by whoever has
    them."""

    blobs: BlobService
    directories: DirectoryService
    path_infos: PathInfoService
    # What holds `blobs` and `directories` together, the threads of the composition, and how its
    # Directories state their sizes: for `import_path` and its like.
    content: Content | None = field(default=None, repr=False)
    pools: Pools | None = field(default=None, repr=False)
    sizes: SizeRule = field(default=SizeRule.DOCUMENTED, repr=False)
    _forget: Callable[[Collection[bytes]], Awaitable[int]] | None = field(default=None, repr=False)

    async def forget_absences(self, path_hashes: Collection[bytes] = ()) -> int:
        """Has what was absent asked for anew, by upstreams and by nodes: of the paths with these
        hashes, or all there is. Returns how many such answers were remembered."""
        return 0 if self._forget is None else await self._forget(path_hashes)


@asynccontextmanager
async def open_store(
    source: str | PathLike[str] | Mapping[str, Any],
) -> AsyncIterator[Store]:
    """See `tvixstore.open`."""
    if isinstance(source, Mapping):
        config = load_document(source, "the mapping", Path.cwd())
    else:
        config = load_file(Path(source))
    async with _running(config) as store:
        yield store


@asynccontextmanager
async def open_text(text: str, folder: str | PathLike[str] | None) -> AsyncIterator[Store]:
    """See `tvixstore.loads`."""
    config = load_text(text, "the text", Path.cwd() if folder is None else Path(folder))
    async with _running(config) as store:
        yield store


@asynccontextmanager
async def _running(config: Config) -> AsyncIterator[Store]:
    # Whoever only connects to a daemon needs none of what it is made of.
    from tvixstore.compose.composition import Composition

    async with await Composition.open(config, embedded=True) as composition:
        yield Store(
            composition.content.blobs,
            composition.content.directories,
            composition.path_infos,
            composition.content,
            composition.pools,
            SizeRule(config.daemon.directory_sizes),
            composition.forget_absences,
        )


async def import_path(
    store: Store,
    path: str | bytes | PathLike[str],
    name: str | None,
    flat: bool,
    progress: OnProgress | None,
) -> PathInfo:
    """See `tvixstore.import_path`."""
    async with _at_work(store) as (content, pools):
        importer = Importer(content, store.path_infos, pools, store.sizes, progress or nobody)
        return await importer.add(path, name=name, flat=flat)


async def extract(
    store: Store,
    path: Place,
    target: str | bytes | PathLike[str],
    link: bool,
    progress: OnProgress | None,
) -> None:
    """See `tvixstore.extract`."""
    async with _at_work(store) as (content, pools):
        node = await TreeReader(store.path_infos, content).find(_inside(path))
        await Extractor(content, pools, link, progress or nobody).put(node, target)


def list_path(store: Store, path: Place, recursive: bool) -> AsyncGenerator[Found, None]:
    """See `tvixstore.list_path`."""
    return _reader(store).list(_inside(path), recursive=recursive)


async def open_file(store: Store, path: Place, offset: int, length: int | None) -> ByteStream:
    """See `tvixstore.open_file`."""
    return await _reader(store).open_file(_inside(path), offset, length)


async def open_nar(store: Store, path: Place) -> ByteStream:
    """See `tvixstore.open_nar`."""
    return await _reader(store).open_nar(_inside(path))


async def add_nar(
    store: Store, source: AsyncIterable[bytes], claims: Claims, public_keys: Collection[str]
) -> PathInfo:
    """See `tvixstore.add_nar`."""
    keys = [PublicKey.parse(key) for key in public_keys]
    trust = Trust(KeyRing(keys)) if keys else Trust()
    async with _at_work(store) as (content, pools):
        with TemporaryDirectory(prefix="tvixstore-") as spool:
            adder = NarAdder(content, store.path_infos, pools, Path(spool), store.sizes, trust)
            return await adder.add(source, "the NAR", claims)


def _reader(store: Store) -> TreeReader:
    content = store.content or Content(store.blobs, store.directories)
    return TreeReader(store.path_infos, content)


def _inside(path: Place) -> Inside:
    return Inside(path) if isinstance(path, StorePath) else Inside.parse(path)


@asynccontextmanager
async def _at_work(store: Store) -> AsyncIterator[tuple[Content, Pools]]:
    """What a store that was put together by hand need not have."""
    content = store.content or Content(store.blobs, store.directories)
    if store.pools is not None:
        yield content, store.pools
        return
    with _threads() as pools:
        yield content, pools


@contextmanager
def _threads() -> Iterator[Pools]:
    pools = Pools(dns=1)
    try:
        yield pools
    finally:
        pools.close()
