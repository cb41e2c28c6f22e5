"""The one interface behind everything that persists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tvixstore.errors import InvalidData

MAX_KEY_BYTES = 511

# A key and what it becomes; `None` deletes.
Change = tuple[bytes, bytes | None]


def check_key(key: bytes) -> None:
    """Raises `InvalidData` unless `key` may stand in a table."""
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise InvalidData(f"key is {len(key)} bytes long, expected 1 to {MAX_KEY_BYTES}")


class KeyValue(ABC):
    """A table of byte strings, ordered by key. Keys are 1 to 511 bytes long (LMDB's limit)."""

    # Whether all changes of one `apply` become visible and durable together.
    atomic: bool = False

    @abstractmethod
    async def get(self, key: bytes) -> bytes | None:
        """The value, or `None` if there is none."""

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in their order."""
        return [await self.get(key) for key in keys]

    async def absent(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of `keys` that have no value, in their order."""
        values = await self.get_many(keys)
        return [key for key, value in zip(keys, values, strict=True) if value is None]

    @abstractmethod
    async def put_if_absent(self, key: bytes, value: bytes) -> bool:
        """Stores `value` unless the key has one; says whether it did. Durable when it returns."""

    @abstractmethod
    async def apply(self, changes: Sequence[Change]) -> None:
        """Makes the changes in order, durable when it returns.

        Each key changes atomically, and a later change is never visible without the earlier ones.
        Raises `StorageFull` when there is no room, and then nothing of an `atomic` batch stays.
        """

    @abstractmethod
    async def scan(
        self, prefix: bytes = b"", after: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """One page of keys that begin with `prefix`, in order, from the first one above `after`."""
