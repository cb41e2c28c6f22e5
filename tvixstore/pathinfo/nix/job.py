"""What somebody who wants a NAR asks the table of fills for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tvixstore.errors import StoreError
from tvixstore.pathinfo.nix.download import Gone, NarSource
from tvixstore.pathinfo.nix.trust import Proof
from tvixstore.tree import Content

# NAR hash, NAR size, the path that a proof is about, and where the content goes.
Key: TypeAlias = tuple[bytes, int, str, int, int]


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
        """Jobs with the same key share one fill: the NAR, what else is to be proven of it, and
        where its content is to be found afterwards."""
        proven = "" if self.proof is None else self.source.store_path
        # The job has them, so nothing else comes to be known by these numbers meanwhile.
        place = id(self.content.blobs), id(self.content.directories)
        return (self.source.nar_sha256, self.source.nar_size, proven, *place)
