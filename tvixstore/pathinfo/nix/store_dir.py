"""Whether a cache is of our store at all: `StoreDir` in its nix-cache-info."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from tvixstore.errors import CorruptData, StoreError
from tvixstore.log import Logger
from tvixstore.nix import STORE_DIR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CACHE_INFO = "nix-cache-info"
# Seconds until an answer that was not had, or was wrong, is asked for again.
ASK_AGAIN = 60.0

log = Logger("tvixstore.pathinfo.nix.store_dir")


class StoreDirCheck:
    """Asks once for everybody, in a task of its own: its first caller may leave."""

    def __init__(self, name: str, fetch: Callable[[], Awaitable[str | None]]) -> None:
        self._name = name
        self._fetch = fetch
        self._right = False
        self._wrong: str | None = None
        self._again = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Raises `CorruptData` if the store is another one; nothing while that is not known."""
        if self._right:
            return
        loop = asyncio.get_running_loop()
        if self._asking is None and loop.time() >= self._again:
            # A caller's deadline is not this task's: others wait for it too.
            self._asking = loop.create_task(self._ask(), context=contextvars.Context())
        if self._asking is not None:
            await asyncio.shield(self._asking)
        if self._wrong is not None:
            raise CorruptData(f"{self._name}: its store is {self._wrong}, not {STORE_DIR}")

    async def aclose(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask(self) -> None:
        try:
            text = await self._fetch()
        except StoreError as error:
            log.warning("upstream.store_dir_unknown", node=self._name, reason=str(error))
        else:
            store_dir = STORE_DIR if text is None else _store_dir(text)
            self._right = store_dir == STORE_DIR
            self._wrong = None if self._right else store_dir
        finally:
            self._again = asyncio.get_running_loop().time() + ASK_AGAIN
            self._asking = None


def _store_dir(text: str) -> str:
    """A cache that does not say, as one without nix-cache-info, is taken for ours."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == "StoreDir":
            return value.strip().rstrip("/")
    return STORE_DIR
