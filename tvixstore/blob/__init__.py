"""Blobs: bytes by their BLAKE3 digest, and everywhere that they can be kept."""

from tvixstore.blob.cached import CachedBlobService
from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.local import LocalBlobService
from tvixstore.blob.memory import MemoryBlobService
from tvixstore.blob.racing import RacingBlobService
from tvixstore.blob.readonly import ReadOnlyBlobService
from tvixstore.blob.service import BlobService, BlobWriter, Chunk
from tvixstore.blob.verify import VerifyBlobService

__all__ = [
    "BlobService",
    "BlobWriter",
    "CachedBlobService",
    "Chunk",
    "FallbackBlobService",
    "LocalBlobService",
    "MemoryBlobService",
    "RacingBlobService",
    "ReadOnlyBlobService",
    "VerifyBlobService",
]
