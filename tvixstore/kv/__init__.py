"""Everything that persists: one small key-value interface, one file per engine."""

from tvixstore.kv.audit import Damage, TableReader
from tvixstore.kv.disk import DiskGuard
from tvixstore.kv.lmdb import Durability, LmdbEngine
from tvixstore.kv.memory import MemoryKeyValue
from tvixstore.kv.service import Change, KeyValue
from tvixstore.kv.state import StateDirectory
from tvixstore.kv.steps import STEPS, step

__all__ = [
    "STEPS",
    "Change",
    "Damage",
    "DiskGuard",
    "Durability",
    "KeyValue",
    "LmdbEngine",
    "MemoryKeyValue",
    "StateDirectory",
    "TableReader",
    "step",
]
