"""The service of extras: small files beside the paths, by their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass

from tvixstore.extras.names import ExtraName
from tvixstore.streams import ByteStream


@dataclass(frozen=True, slots=True)
class Found:
    """An extra that is there: `size` if it is known, and how to `open` it."""

    size: int | None
    # `None` if it went away meanwhile.
    open: Callable[[], Awaitable[ByteStream | None]]


class ExtrasService(ABC):
    """Extras by name. `None` is absent; an exception is unknown (or broken), never absent."""

    @abstractmethod
    async def find(self, name: ExtraName) -> Found | None:
        """What is known under that name; logs as plain text, documents checked."""

    @abstractmethod
    async def put_document(self, name: ExtraName, data: bytes) -> None:
        """Keeps what `check_document` made, durably.

        A realisation or build trace that is there gets the signatures of both; one that speaks of
        another path is refused (`Conflict`). Debug information is replaced.
        """

    @abstractmethod
    async def put_log(self, name: ExtraName, text: AsyncIterable[bytes]) -> None:
        """Keeps a log, durably, in place of the one that is there. The caller closes `text`."""
