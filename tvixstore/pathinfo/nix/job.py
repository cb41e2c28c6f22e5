"""What somebody who wants a NAR asks the table of fills for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvixstore.errors import StoreError
from tvixstore.pathinfo.nix.download import Gone, NarSource
from tvixstore.pathinfo.nix.trust import Proof
from tvixstore.tree import Content

# NAR hash, NAR size, and the path that a proof is about.
Key: TypeAlias = tuple[bytes, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a substituter asks the table to fill."""

    source: NarSource
    content: Content
    proof: Proof | None = None
    # Told once, when the download fails, by whose fault it is.
    on_failure: Callable[[StoreError | Gone], None]

    @property
    def key(self) -> Key:
        """Jobs with the same key share one fill: the NAR, and what else is to be proven of it."""
        proven = "" if self.proof is None else self.source.store_path
        return (self.source.nar_sha256, self.source.nar_size, proven)
