"""A composable content-addressed store and caching proxy for Nix.

    async with tvixstore.open("compose.toml") as store:
        info = await store.path_infos.get(path_hash)

Importing this costs nothing: what is behind `open` is imported when it is called.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from tvixstore.activity import Progress
    from tvixstore.castore import Node
    from tvixstore.filesystem import Claims, TreeProgress
    from tvixstore.library import Store
    from tvixstore.nar import NarIdentity
    from tvixstore.nix import StorePath
    from tvixstore.pathinfo import PathInfo
    from tvixstore.streams import ByteStream

__all__ = [
    "Progress",
    "Store",
    "__version__",
    "add_nar",
    "extract",
    "import_path",
    "list_path",
    "loads",
    "nar_hash",
    "open",
    "open_file",
    "open_nar",
    "progress",
]

__version__ = "0.1.0"


def open(source: str | PathLike[str] | Mapping[str, Any]) -> AbstractAsyncContextManager[Store]:
    """The composition in the file `source`, or in a mapping that is what a file would be parsed to.

    To be entered in a running event loop; leaving it ends what is under way, and closes everything.
    Paths in a file are relative to its folder, in a mapping to the current one. `[daemon]` listens
    nowhere here: its other keys count. Raises `ConfigError`, a line a mistake.
    """
    from tvixstore.library import open_store

    return open_store(source)


def loads(
    text: str, *, folder: str | PathLike[str] | None = None
) -> AbstractAsyncContextManager[Store]:
    """The composition in `text`, as `open` has it; paths are relative to `folder`, or else to the
    current one."""
    from tvixstore.library import open_text

    return open_text(text, folder)


def progress(
    callback: Callable[[Progress], None], every: float = 0.5
) -> AbstractContextManager[None]:
    """Has `callback` told of what the calls of a store's services inside wait for.

        with tvixstore.progress(lambda each: print(each.source, each.phase, each.bytes)):
            info = await store.path_infos.get(path_hash)

    It is called from the event loop: for each thing that is waited for when that begins, whenever
    its phase changes, every so many seconds meanwhile, and when it is over (`Progress.over`). Tasks
    that are started inside are included. It must not block; an exception of its own is logged, and
    it is not called again.
    """
    from tvixstore.activity import watching

    return watching(callback, every)


async def import_path(
    store: Store,
    path: str | bytes | PathLike[str],
    *,
    name: str | None = None,
    flat: bool = False,
    progress: Callable[[TreeProgress], None] | None = None,
) -> PathInfo:
    """Takes the tree at `path` into `store`, and returns the path info that is there now.

    Its store path is that of `nix-store --add`, or with `flat`, for a file alone, that of
    `nix-store --add-fixed sha256`; its name is the file's, or `name`. Content that is there is not
    sent again. `progress` is called in the event loop, now and then, with sums so far; sizes are
    bytes. Raises `TreeError`, which names the file, for what cannot be taken, and `InvalidData` for
    a name that no store path can have; what the store raises comes as it is. After an error, or
    when it was cancelled, there is no path info.
    """
    from tvixstore.library import import_path

    return await import_path(store, path, name, flat, progress)


async def extract(
    store: Store,
    path: StorePath | str | bytes,
    target: str | bytes | PathLike[str],
    *,
    link: bool = False,
    progress: Callable[[TreeProgress], None] | None = None,
) -> None:
    """Has `target`, whose parent is there, become what is at `path`: a store path, or inside one.

    Nothing is written over what exists: what is right stays, so that calling this again finishes
    what was broken off; anything else raises `TreeError`. With `link`, equal files share their
    contents, by reflinks or else as hard links. `progress` is called as by `import_path`. Raises
    `AbsentPath` for what is nowhere, `InvalidData` for a `path` that is none, and `Unavailable` or
    `CorruptData` where content cannot be had. No file is left that is not whole, and a folder that
    was not finished has the mode 1700.
    """
    from tvixstore.library import extract

    await extract(store, path, target, link, progress)


def list_path(
    store: Store, path: StorePath | str | bytes, *, recursive: bool = False
) -> AsyncGenerator[tuple[bytes, Node], None]:
    """Names and nodes of what the folder at `path` holds; with `recursive`, of all below it.

    Names are bytes, below the folder: `b"bin/hello"`. What is no folder is told of itself, with the
    name `b""`. Raises `AbsentPath` where nothing is, when it is iterated over, and `InvalidData` at
    once for a `path` that is none. Whoever stops early closes the generator.
    """
    from tvixstore.library import list_path

    return list_path(store, path, recursive)


async def open_file(
    store: Store, path: StorePath | str | bytes, offset: int = 0, length: int | None = None
) -> ByteStream:
    """The bytes of the file at `path` from `offset`, at most `length` of them.

    Fetches the Directories on the way, and that file. A range that begins behind the end is empty.
    Raises `AbsentPath` where nothing is, and `InvalidData` where something else is, or for a range
    below 0. Whoever stops reading closes the stream.
    """
    from tvixstore.library import open_file

    return await open_file(store, path, offset, length)


async def open_nar(store: Store, path: StorePath | str | bytes) -> ByteStream:
    """The NAR of the store path `path` as it becomes available, or of what is inside of one.

    Raises `AbsentPath` where nothing is. What is found wrong on the way is raised while it is read,
    before the NAR has ended. Whoever stops reading closes the stream.
    """
    from tvixstore.library import open_nar

    return await open_nar(store, path)


async def add_nar(
    store: Store,
    source: AsyncIterable[bytes],
    claims: Claims,
    *,
    public_keys: Collection[str] = (),
) -> PathInfo:
    """Takes the NAR that `source` gives, compressed or not, into `store`.

    `claims` say what it is of; raises `InvalidData` where it is not what they say. With
    `public_keys`, as `NAME:KEY`, one of them has to have signed it, unless its content address is
    the proof; else `Untrusted` is raised.
    """
    from tvixstore.library import add_nar

    return await add_nar(store, source, claims, public_keys)


async def nar_hash(path: str | bytes | PathLike[str]) -> NarIdentity:
    """`size` in bytes and `sha256` (32 of them) of the NAR of the tree at `path`; needs no store.

    Raises `TreeError`, which names the file, for what `import_path` would not take.
    """
    from tvixstore.filesystem import hash_alone

    return await hash_alone(path)


if not TYPE_CHECKING:

    def __getattr__(name):
        """`Store` and `Progress`, for those who annotate with them while they run."""
        if name == "Progress":
            from tvixstore.activity import Progress

            return Progress
        if name == "Store":
            from tvixstore.library import Store

            return Store
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
