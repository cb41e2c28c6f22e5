"""A composable content-addressed store and caching proxy for Nix.

    async with tvixstore.open("compose.toml") as store:
        info = await store.path_infos.get(path_hash)

Importing this costs nothing: what is behind `open` is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from tvixstore.activity import Progress
    from tvixstore.library import Store

__all__ = ["Progress", "Store", "__version__", "loads", "open", "progress"]

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
