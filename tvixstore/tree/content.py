"""The two services that hold the content of store paths, as a pair."""

from __future__ import annotations

from dataclasses import dataclass

from tvixstore.blob import BlobService
from tvixstore.directory import DirectoryService


@dataclass(frozen=True, slots=True)
class Content:
    """Where the blobs and the Directories of a tree are read from, or written to."""

    blobs: BlobService
    directories: DirectoryService
