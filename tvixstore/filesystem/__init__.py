"""Trees on disk: into a store, out of it, and hashed without one; and what is inside of paths."""

from tvixstore.filesystem.adding import Claims, NarAdder
from tvixstore.filesystem.extracting import Extractor
from tvixstore.filesystem.importing import Importer, OnProgress, TreeProgress, nobody
from tvixstore.filesystem.inside import Found, Inside, TreeReader, shown
from tvixstore.filesystem.nar_hash import nar_hash

__all__ = [
    "Claims",
    "Extractor",
    "Found",
    "Importer",
    "Inside",
    "NarAdder",
    "OnProgress",
    "TreeProgress",
    "TreeReader",
    "nar_hash",
    "nobody",
    "shown",
]
