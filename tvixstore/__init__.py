"""A composable content-addressed store and caching proxy for Nix.

    async with tvixstore.open("compose.toml") as store:
        info = await store.path_infos.get(path_hash)

Importing this costs nothing: what is behind `open` is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from tvixstore.filesystem import Progress
    from tvixstore.library import Store
    from tvixstore.nar import NarIdentity
    from tvixstore.pathinfo import PathInfo

__all__ = ["Store", "__version__", "import_path", "loads", "nar_hash", "open"]

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


async def import_path(
    store: Store,
    path: str | bytes | PathLike[str],
    *,
    name: str | None = None,
    flat: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> PathInfo:
    """Takes the tree at `path` into `store`, and returns the path info that is there now.

    Its store path is that of `nix-store --add`, or with `flat`, for a file alone, that of
    `nix-store --add-fixed sha256`; its name is the file's, or `name`. Content that is there is not
    sent again. `progress` is called in the event loop, now and then, with sums so far. Raises
    `TreeError`, which names the file, for what cannot be taken; no path info is put then.
    """
    from tvixstore.library import import_path

    return await import_path(store, path, name, flat, progress)


async def nar_hash(path: str | bytes | PathLike[str]) -> NarIdentity:
    """`size` and `sha256` of the NAR of the tree at `path`, without any store."""
    from tvixstore.library import hash_path

    return await hash_path(path)


if not TYPE_CHECKING:

    def __getattr__(name):
        """`Store`, for those who annotate with it while they run."""
        if name == "Store":
            from tvixstore.library import Store

            return Store
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
