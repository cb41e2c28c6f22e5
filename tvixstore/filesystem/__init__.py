"""Trees on disk: into a store, out of it, and hashed without one."""

from tvixstore.filesystem.importing import Importer, OnProgress, Progress, nobody
from tvixstore.filesystem.nar_hash import nar_hash

__all__ = ["Importer", "OnProgress", "Progress", "nar_hash", "nobody"]
