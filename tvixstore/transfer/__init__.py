"""Copying store paths from one place to another: stores of any kind, and binary caches."""

from tvixstore.transfer.binary_cache import BinaryCache
from tvixstore.transfer.cache_target import CacheTarget
from tvixstore.transfer.copy import Copy
from tvixstore.transfer.documents import parse_document
from tvixstore.transfer.folder_cache import FolderCache
from tvixstore.transfer.http_cache import HttpCache
from tvixstore.transfer.packing import Compression
from tvixstore.transfer.plan import plan
from tvixstore.transfer.target import Source, StoreTarget, Target
from tvixstore.transfer.trust import Trust
from tvixstore.transfer.wanted import Wanted, parse_store_path, parse_wanted
from tvixstore.transfer.watcher import Outcome, Report, Watcher

__all__ = [
    "BinaryCache",
    "CacheTarget",
    "Compression",
    "Copy",
    "FolderCache",
    "HttpCache",
    "Outcome",
    "Report",
    "Source",
    "StoreTarget",
    "Target",
    "Trust",
    "Wanted",
    "Watcher",
    "parse_document",
    "parse_store_path",
    "parse_wanted",
    "plan",
]
