"""What a content-addressed store path is addressed by, and the path that follows from it."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tvixstore.errors import InvalidData, Unsupported
from tvixstore.nix.hashes import SIZES, NixHash
from tvixstore.nix.store_path import HASH_BYTES, STORE_DIR, StorePath

Method = Literal["text", "flat", "recursive"]

_FORM = re.compile(r"(text:|fixed:(?:r:|git:)?)([a-z0-9-]+):[^:]+")
_METHODS: dict[str, Method] = {"text:": "text", "fixed:": "flat", "fixed:r:": "recursive"}
_PREFIXES = {method: prefix for prefix, method in _METHODS.items()}


@dataclass(frozen=True, slots=True)
class ContentAddress:
    """`text:…`, `fixed:…` (flat) or `fixed:r:…` (recursive: over the NAR)."""

    method: Method
    hash: NixHash

    def __post_init__(self) -> None:
        if self.method == "text" and self.hash.algorithm != "sha256":
            raise InvalidData(f"a text is addressed by sha256, not by {self.hash.algorithm}")

    @classmethod
    def parse(cls, text: str) -> ContentAddress:
        """Raises `InvalidData` on what is none, `Unsupported` on the kinds of newer Nix.

        Those are `fixed:git:…` and further hash algorithms; path infos can't hold them.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidData(f"{text!r} is not a content address")
        prefix, algorithm = match.groups()
        method = _METHODS.get(prefix)
        if method is None or algorithm not in SIZES:
            raise Unsupported(f"content address {text!r} is of a kind that path infos can't hold")
        return cls(method, NixHash.parse(text[len(prefix) :]))

    def __str__(self) -> str:
        return f"{_PREFIXES[self.method]}{self.hash}"

    def store_path(
        self, name: str, references: Iterable[StorePath] = (), *, self_reference: bool = False
    ) -> StorePath:
        """The path of this content under `name`.

        `references` are the others, in any order; `self_reference` says that the path refers to
        itself too. Raises `InvalidData` where this kind of address allows no such references.
        """
        others = sorted(str(reference) for reference in set(references))
        if self.method == "text":
            if self_reference:
                raise InvalidData("a text cannot refer to itself")
            return _fold(":".join(["text", *others]), self.hash.digest, name)
        if self.method == "recursive" and self.hash.algorithm == "sha256":
            itself = ["self"] if self_reference else []
            return _fold(":".join(["source", *others, *itself]), self.hash.digest, name)
        if others or self_reference:
            raise InvalidData(f"content addressed by {self} cannot have references")
        marker = "r:" if self.method == "recursive" else ""
        inner = f"fixed:out:{marker}{self.hash.algorithm}:{self.hash.digest.hex()}:"
        return _fold("output:out", hashlib.sha256(inner.encode()).digest(), name)


def _fold(kind: str, digest: bytes, name: str) -> StorePath:
    described = f"{kind}:sha256:{digest.hex()}:{STORE_DIR}:{name}"
    folded = bytearray(HASH_BYTES)
    for index, byte in enumerate(hashlib.sha256(described.encode()).digest()):
        folded[index % HASH_BYTES] ^= byte
    return StorePath(bytes(folded), name)


def hash_modulo(nar_parts: Iterable[bytes], digits: bytes) -> bytes:
    """The SHA-256 of a NAR without regard to where it names its own path.

    Each occurrence of `digits`, also one that begins in a part and ends in a later one, counts as
    NULs; then come `|` and the offset of each. Takes memory by the part and by the occurrence.
    """
    nulls = bytes(len(digits))
    hasher = hashlib.sha256()
    offsets = array("Q")
    held, start = b"", 0
    for part in nar_parts:
        window = held + part
        found = window.find(digits)
        while found >= 0:
            offsets.append(start + found)
            found = window.find(digits, found + len(digits))
        # An occurrence may have begun in the last bytes. What was replaced can't be part of one.
        clean = window.replace(digits, nulls)
        cut = max(len(clean) - len(digits) + 1, 0)
        hasher.update(clean[:cut])
        held = clean[cut:]
        start += cut
    hasher.update(held)
    for offset in offsets:
        hasher.update(b"|%d" % offset)
    return hasher.digest()
