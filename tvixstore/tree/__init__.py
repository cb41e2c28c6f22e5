"""Trees: what blobs and Directories are together."""

from tvixstore.tree.content import Content

__all__ = ["Content"]
