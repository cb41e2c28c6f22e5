"""The store as a library: a composition, opened in another program's event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvixstore.blob import BlobService
from tvixstore.compose import Config, load_document, load_file, load_text
from tvixstore.compose.composition import Composition
from tvixstore.directory import DirectoryService
from tvixstore.pathinfo import PathInfoService

if TYPE_CHECKING:
    from os import PathLike


@dataclass(frozen=True, slots=True)
class Store:
    """The roots of a composition that is open; they are closed with it, and not by whoever has
    them."""

    blobs: BlobService
    directories: DirectoryService
    path_infos: PathInfoService
    # Has every `negative` node of the composition forget what it remembers as absent.
    forget_absences: Callable[[], None] = lambda: None


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
    async with await Composition.open(config, embedded=True) as composition:
        yield Store(
            composition.content.blobs,
            composition.content.directories,
            composition.path_infos,
            composition.forget_absences,
        )
