"""Blobs: bytes by their BLAKE3 digest, and everywhere that they can be kept."""

from tvixstore.blob.local import LocalBlobService
from tvixstore.blob.memory import MemoryBlobService
from tvixstore.blob.service import BlobService, BlobWriter, Chunk

__all__ = ["BlobService", "BlobWriter", "Chunk", "LocalBlobService", "MemoryBlobService"]
