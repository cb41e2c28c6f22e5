"""Directories: by the BLAKE3 digest of their wire form, and everywhere that they can be kept."""

from tvixstore.directory.local import LocalDirectoryService
from tvixstore.directory.memory import MemoryDirectoryService
from tvixstore.directory.service import DirectoryPutter, DirectoryService

__all__ = [
    "DirectoryPutter",
    "DirectoryService",
    "LocalDirectoryService",
    "MemoryDirectoryService",
]
