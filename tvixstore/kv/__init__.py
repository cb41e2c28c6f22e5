"""Everything that persists: one small key-value interface, one file per engine."""

from tvixstore.kv.audit import Damage, TableReader
from tvixstore.kv.disk import DiskGuard, Refused
from tvixstore.kv.freeing import Evicted, Freed, Freeing
from tvixstore.kv.holds import BLOB, DIRECTORY, PATH, Hold, Holds, key_of
from tvixstore.kv.lmdb import Durability, LmdbEngine
from tvixstore.kv.memory import MemoryKeyValue
from tvixstore.kv.references import ChunkRow, References
from tvixstore.kv.service import Change, KeyValue
from tvixstore.kv.state import StateDirectory
from tvixstore.kv.steps import EVICTION_STEPS, STEPS, step

__all__ = [
    "BLOB",
    "DIRECTORY",
    "EVICTION_STEPS",
    "PATH",
    "STEPS",
    "Change",
    "ChunkRow",
    "Damage",
    "DiskGuard",
    "Durability",
    "Evicted",
    "Freed",
    "Freeing",
    "Hold",
    "Holds",
    "KeyValue",
    "LmdbEngine",
    "MemoryKeyValue",
    "References",
    "Refused",
    "StateDirectory",
    "TableReader",
    "key_of",
    "step",
]
