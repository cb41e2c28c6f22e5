"""What a composition keeps in one state directory, as far as it keeps anything there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tvixstore.blob import LocalBlobService
from tvixstore.blob.audit import BlobAudit, SoundBlobs
from tvixstore.directory import LocalDirectoryService
from tvixstore.directory.audit import DirectoryAudit, SoundDirectories
from tvixstore.errors import Unsupported
from tvixstore.pathinfo import LocalPathInfoService, PathInfoService
from tvixstore.pathinfo.audit import PathInfoAudit
from tvixstore.pathinfo.pins import Pins
from tvixstore.tree import Content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tvixstore.kv import Holds, KeyValue
    from tvixstore.nar import NarIdentities
    from tvixstore.pools import Pools


class Accounts(Protocol):
    """How many refer to each object, and how much room it all takes, as eviction counts it."""

    async def check(self) -> list[str]:
        """What does not add up: what it is, a colon, and how."""

    async def rebuild(self) -> object:
        """Counts all of it anew."""


@dataclass
class Holdings:
    """The services in the state at `path`, with its other tables by name.

    `root` is the composition's, from which paths that were lost come again; `nars` is what the NARs
    of trees here are known by.
    """

    path: Path
    pools: Pools
    root: PathInfoService
    nars: NarIdentities
    table: Callable[[str], KeyValue]
    blobs: LocalBlobService | None = None
    directories: LocalDirectoryService | None = None
    path_infos: LocalPathInfoService | None = None
    accounts: Accounts | None = None
    # What is not to be evicted although nothing on disk says so.
    holds: Holds | None = None
    audits: Audits = field(init=False)

    def __post_init__(self) -> None:
        self.pins = Pins(self.table("pins"))
        pool = self.pools.background
        self.audits = Audits(
            None if self.blobs is None else self.blobs.audit(),
            None if self.directories is None else self.directories.audit(pool),
            None if self.path_infos is None else self.path_infos.audit(pool),
        )

    @property
    def beyond(self) -> Content | None:
        """Where content of paths may be that is not here; `None` if it is all meant to be."""
        content = None if self.path_infos is None else self.path_infos.content
        return None if content is None or self._is_here(content) else content

    @property
    def closed(self) -> bool:
        """Whether every Directory here is meant to have its children here: those of paths that are
        kept elsewhere, too, and those of no path."""
        return self.beyond is None and self._is_here(self.nars.content)

    def _is_here(self, content: Content) -> bool:
        return content.blobs is self.blobs and content.directories is self.directories

    def paths(self) -> PathInfoAudit:
        """The path infos that are kept here. Raises `Unsupported` if none are."""
        if self.audits.path_infos is None:
            raise Unsupported(
                f"no path infos are kept in {self.path}: pins, and checks of paths, are for "
                'compositions with a pathinfoservice of type = "local" at the [daemon] state'
            )
        return self.audits.path_infos


@dataclass(frozen=True)
class Audits:
    """What goes through each of the services."""

    blobs: BlobAudit | None
    directories: DirectoryAudit | None
    path_infos: PathInfoAudit | None

    def content(self) -> Content | None:
        """The content that is here, as it is on disk, read without being changed."""
        if self.blobs is None or self.directories is None:
            return None
        return Content(SoundBlobs(self.blobs), SoundDirectories(self.directories))
