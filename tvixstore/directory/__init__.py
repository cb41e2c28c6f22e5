"""Directories: by the BLAKE3 digest of their wire form, and everywhere that they can be kept."""

from tvixstore.directory.cached import CachedDirectoryService
from tvixstore.directory.fallback import FallbackDirectoryService
from tvixstore.directory.local import LocalDirectoryService
from tvixstore.directory.memory import MemoryDirectoryService
from tvixstore.directory.racing import RacingDirectoryService
from tvixstore.directory.readonly import ReadOnlyDirectoryService
from tvixstore.directory.service import DirectoryPutter, DirectoryService
from tvixstore.directory.verify import VerifyDirectoryService

__all__ = [
    "CachedDirectoryService",
    "DirectoryPutter",
    "DirectoryService",
    "FallbackDirectoryService",
    "LocalDirectoryService",
    "MemoryDirectoryService",
    "RacingDirectoryService",
    "ReadOnlyDirectoryService",
    "VerifyDirectoryService",
]
