"""Store paths with their content, and NARs that are written independently of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tvixstore.blob import MemoryBlobService
from tvixstore.castore import Directory, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.directory import MemoryDirectoryService
from tvixstore.nix import KeyRing, SecretKey, Signature, StorePath, fingerprint
from tvixstore.pathinfo import Description, PathInfo
from tvixstore.tree import Content


def secret_key(name: str) -> SecretKey:
    """A key that is the same each time, made from its name."""
    seed = hashlib.sha256(name.encode()).digest()
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return SecretKey(name, seed + public)


TRUSTED = secret_key("trusted-1")
STRANGER = secret_key("stranger-1")
KEYS = KeyRing([TRUSTED.public_key])

# Bytes are a file, a tuple with a target is a symlink, a dict a directory.
Tree = bytes | tuple[bytes] | dict[bytes, "Tree"]


@dataclass(frozen=True)
class Sample:
    """A path info, and the NAR that it promises."""

    info: PathInfo
    nar: bytes

    @property
    def key(self) -> bytes:
        return self.info.store_path.hash


def memory_content() -> Content:
    return Content(MemoryBlobService(), MemoryDirectoryService())


def store_path(name: str, seed: str = "") -> StorePath:
    return StorePath(hashlib.sha1(f"{seed}{name}".encode()).digest(), name)


async def add(
    content: Content,
    name: str,
    tree: Tree,
    *,
    references: Sequence[StorePath] = (),
    signers: Sequence[SecretKey] = (),
) -> Sample:
    """Puts `tree` into `content` as the path `name`, whose hash depends on its name alone."""
    nar = nar_of(tree)
    info = PathInfo(
        store_path=store_path(name),
        nar_sha256=hashlib.sha256(nar).digest(),
        nar_size=len(nar),
        references=tuple(references),
        node=await _ingest(content, tree),
    )
    return Sample(signed(info, *signers), nar)


def signed(info: PathInfo, *signers: SecretKey) -> PathInfo:
    """`info` with signatures of `signers` only."""
    return replace(info, signatures=tuple(signature(info, signer) for signer in signers))


def signature(info: Description, signer: SecretKey) -> Signature:
    ordered = sorted(info.references, key=str)
    return signer.sign(fingerprint(info.store_path, info.nar_sha256, info.nar_size, ordered))


async def _ingest(content: Content, tree: Tree) -> Node:
    if isinstance(tree, bytes):
        return FileNode(await content.blobs.put(tree), len(tree))
    if isinstance(tree, tuple):
        return SymlinkNode(tree[0])
    directory = Directory.of(
        [(name, await _ingest(content, below)) for name, below in tree.items()]
    )
    return DirectoryNode(await content.directories.put(directory), directory.size)


def nar_of(tree: Tree) -> bytes:
    return _strings(b"nix-archive-1") + _nar_node(tree)


def _nar_node(tree: Tree) -> bytes:
    if isinstance(tree, bytes):
        return _strings(b"(", b"type", b"regular", b"contents", tree, b")")
    if isinstance(tree, tuple):
        return _strings(b"(", b"type", b"symlink", b"target", tree[0], b")")
    entries = [
        _strings(b"entry", b"(", b"name", name, b"node") + _nar_node(tree[name]) + _strings(b")")
        for name in sorted(tree)
    ]
    return _strings(b"(", b"type", b"directory") + b"".join(entries) + _strings(b")")


def _strings(*values: bytes) -> bytes:
    return b"".join(
        len(value).to_bytes(8, "little") + value + bytes(-len(value) % 8) for value in values
    )
