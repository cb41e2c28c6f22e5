"""What the writers that cut blobs into chunks have in common: an error leaves no way on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvixstore.blob.service import BlobWriter
from tvixstore.castore import Digest
from tvixstore.errors import Unsupported


class BreakingWriter(BlobWriter):
    """Has a digest once it is closed, and is broken by whatever goes wrong before."""

    def __init__(self) -> None:
        self._digest: Digest | None = None
        self._broken = False

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """After an error, or a cancellation, nobody can say how much was taken: no way on."""
        if self._broken or self._digest is not None:
            raise Unsupported("this blob writer is closed, or failed before")
        try:
            yield
        except BaseException:
            self._broken = True
            raise
