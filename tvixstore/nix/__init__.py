"""Nix's formats: hashes, store paths, content addresses, narinfos and signatures. Pure."""

from tvixstore.nix import nixbase32
from tvixstore.nix.content_address import ContentAddress, hash_modulo
from tvixstore.nix.hashes import NixHash
from tvixstore.nix.narinfo import NarInfo
from tvixstore.nix.realisation import BuildTrace, Realisation
from tvixstore.nix.signature import KeyRing, PublicKey, SecretKey, Signature, fingerprint
from tvixstore.nix.store_path import STORE_DIR, StorePath, check_new_name

__all__ = [
    "STORE_DIR",
    "BuildTrace",
    "ContentAddress",
    "KeyRing",
    "NarInfo",
    "NixHash",
    "PublicKey",
    "Realisation",
    "SecretKey",
    "Signature",
    "StorePath",
    "check_new_name",
    "fingerprint",
    "hash_modulo",
    "nixbase32",
]
