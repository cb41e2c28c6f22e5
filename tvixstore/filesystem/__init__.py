"""Trees on disk: into a store, out of it, and hashed without one; and what is inside of paths.

What takes a store is imported when it is asked for: whoever only hashes a tree has none to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tvixstore.filesystem.nar_hash import hash_alone, nar_hash

if TYPE_CHECKING:
    from tvixstore.filesystem.adding import Claims, NarAdder
    from tvixstore.filesystem.extracting import Extractor
    from tvixstore.filesystem.importing import Importer, OnProgress, TreeProgress, nobody
    from tvixstore.filesystem.inside import Found, Inside, TreeReader, shown

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
    "hash_alone",
    "nar_hash",
    "nobody",
    "shown",
]

if not TYPE_CHECKING:
    _FROM = {
        "adding": ("Claims", "NarAdder"),
        "extracting": ("Extractor",),
        "importing": ("Importer", "OnProgress", "TreeProgress", "nobody"),
        "inside": ("Found", "Inside", "TreeReader", "shown"),
    }

    def __getattr__(name):
        for module, names in _FROM.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
