"""What a content-addressed store path is addressed by, and the path that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tvixstore.nix.hashes import NixHash
from tvixstore.nix.store_path import StorePath

Method = Literal["text", "flat", "recursive"]


@dataclass(frozen=True, slots=True)
class ContentAddress:
    """`text:…`, `fixed:…` (flat) or `fixed:r:…` (recursive: over the NAR)."""

    method: Method
    hash: NixHash

    @classmethod
    def parse(cls, text: str) -> ContentAddress: ...

    def __str__(self) -> str: ...

    def store_path(
        self, name: str, references: Iterable[StorePath] = (), *, self_reference: bool = False
    ) -> StorePath: ...
