"""What the substituter needs of a binary cache, wherever it is: narinfos, NARs, the store's folder.

Absent is `None`. Whatever else keeps an answer from coming is an exception, and names the upstream
and the URL, without credentials and queries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from tvixstore.streams import ByteStream

MAX_NARINFO_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a download broke off: `offset` in compressed bytes, of the thing `validator` names."""

    offset: int
    # A strong ETag, or a Last-Modified.
    validator: str


class Body(ByteStream):
    """The bytes of a NAR as the upstream has them: compressed, and encoded as `encodings` says.

    Ends only when all of them came; otherwise it raises `Unavailable`, saying how many did.
    """

    # Where these bytes begin: 0, or where the download was to be resumed.
    offset: int
    # Of the whole, if known.
    length: int | None
    # `None`: a download that breaks off cannot be resumed.
    validator: str | None
    # Names of content codings, the outermost (first to be undone) first.
    encodings: tuple[str, ...]
    # For messages: no credentials, no query.
    url: str


class NarOrigin(Protocol):
    """Whatever gives NARs to fills, by URLs that are its own."""

    @property
    def name(self) -> str: ...

    # How many NARs it gives at a time; `open_nar` lets more wait. `None`: as many as are wanted.
    @property
    def max_downloads(self) -> int | None: ...

    async def open_nar(self, url: str, resume: Resume | None = None) -> Body | None: ...


class Upstream(ABC):
    """A binary cache. Its owner closes it."""

    name: str
    # How many NARs it delivers at a time; `open_nar` lets more wait. `None`: as many as are wanted.
    max_downloads: int | None = None

    @abstractmethod
    async def narinfo(self, path_hash: bytes) -> str | None:
        """The narinfo of the path with that 20-byte hash, unparsed; `None` if it has none.

        Raises `CorruptData` for what cannot be one (too long, not UTF-8, HTML), and `Unavailable`.
        """

    @abstractmethod
    async def open_nar(self, url: str, resume: Resume | None = None) -> Body | None:
        """What a narinfo's `url` names, to the letter; `None` if the upstream has it no more.

        With `resume` the body begins there if what is there now is what was there then, otherwise
        at 0: look at its `offset`. Raises `Unavailable`, and `CorruptData` for an URL that cannot
        be one.
        """

    async def open_file(self, path: str) -> Body | None:
        """The file at `path`, relative to the cache, whatever it is; `None` if it is absent.

        Absent is what it would be for a narinfo. Raises as `narinfo` does.
        """
        return await self.open_nar(path)

    @abstractmethod
    async def check_store_dir(self) -> None:
        """Raises `CorruptData` if the cache says that it is of another store than /nix/store.

        Asks once, for everybody, and remembers; what cannot be found out now is asked again later.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Closes connections, also those of bodies that are still open."""
