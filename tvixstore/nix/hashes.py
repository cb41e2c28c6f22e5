"""Hashes as Nix writes them: `sha256:<hex | nixbase32 | base64>`, or SRI."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Literal

from tvixstore.errors import InvalidData
from tvixstore.nix import nixbase32

Algorithm = Literal["md5", "sha1", "sha256", "sha512"]

SIZES: dict[str, int] = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


@dataclass(frozen=True, slots=True)
class NixHash:
    """A digest with the name of its algorithm."""

    algorithm: Algorithm
    digest: bytes

    def __post_init__(self) -> None:
        size = SIZES.get(self.algorithm)
        if size is None:
            raise InvalidData(f"hash algorithm {self.algorithm!r} is not known")
        if len(self.digest) != size:
            raise InvalidData(f"{self.algorithm} digest is {len(self.digest)} bytes, not {size}")

    @classmethod
    def parse(cls, text: str) -> NixHash:
        """From `<algorithm>:<digits>` in any of Nix's encodings, or SRI `<algorithm>-<base64>`."""
        raise InvalidData(f"{text!r} is not a hash")

    def __str__(self) -> str:
        return f"{self.algorithm}:{nixbase32.encode(self.digest)}"
