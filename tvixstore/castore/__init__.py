"""Content-addressed trees: digests, nodes, Directories, their canonical codec, closures. Pure."""

from tvixstore.castore.closure import ClosureBuilder, ClosureReader
from tvixstore.castore.codec import decode_directory, decode_node, encode_directory, encode_node
from tvixstore.castore.digest import DIGEST_BYTES, EMPTY_DIGEST, Digest
from tvixstore.castore.directory import Directory, SizeRule
from tvixstore.castore.nodes import (
    MAX_NAME_BYTES,
    MAX_SIZE,
    MAX_TARGET_BYTES,
    DirectoryNode,
    FileNode,
    Node,
    SymlinkNode,
    check_name,
)
from tvixstore.castore.wire import Entry

__all__ = [
    "DIGEST_BYTES",
    "EMPTY_DIGEST",
    "MAX_NAME_BYTES",
    "MAX_SIZE",
    "MAX_TARGET_BYTES",
    "ClosureBuilder",
    "ClosureReader",
    "Digest",
    "Directory",
    "DirectoryNode",
    "Entry",
    "FileNode",
    "Node",
    "SizeRule",
    "SymlinkNode",
    "check_name",
    "decode_directory",
    "decode_node",
    "encode_directory",
    "encode_node",
]
