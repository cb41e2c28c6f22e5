"""NARs, the archives that Nix exchanges: read, written, listed, into castore and out of it."""

from tvixstore.nar.identity import NarIdentities, NarIdentity
from tvixstore.nar.ingest import ingest
from tvixstore.nar.listing import listing, listing_of_nar
from tvixstore.nar.reader import (
    CloseDirectory,
    Contents,
    Event,
    NarReader,
    OpenDirectory,
    Regular,
    Symlink,
)
from tvixstore.nar.render import render
from tvixstore.nar.sizes import nar_size
from tvixstore.nar.writer import (
    MAX_LEVELS,
    close_directory,
    close_regular,
    open_directory,
    open_regular,
    symlink,
)

__all__ = [
    "MAX_LEVELS",
    "CloseDirectory",
    "Contents",
    "Event",
    "NarIdentities",
    "NarIdentity",
    "NarReader",
    "OpenDirectory",
    "Regular",
    "Symlink",
    "open_directory",
    "close_directory",
    "ingest",
    "listing",
    "listing_of_nar",
    "nar_size",
    "open_regular",
    "close_regular",
    "render",
    "symlink",
]
