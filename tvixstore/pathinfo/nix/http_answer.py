"""What an upstream answered: status and headers, and a body that comes as it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from tvixstore.log import Logger

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from tvixstore.pathinfo.nix.urls import Url

# A body that nobody wants is read to its end, to keep the connection, if that is cheap.
_DISCARDED = 64 << 10
_DISCARDING = 1.0

log = Logger("tvixstore.pathinfo.nix.http")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is unread, from the upstream of that name.

    The connection is kept if the body was read to its end before `close`.
    """

    status: int
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader
    close: Callable[[], None]
    upstream: str
    # What was asked for, and where its redirects led.
    start: Url
    url: Url

    @property
    def where(self) -> str:
        """Upstream and URL, for errors."""
        return where(self.upstream, self.start, self.url)

    @property
    def encodings(self) -> tuple[str, ...]:
        """Content codings, the outermost first."""
        if "Content-Encoding" not in self.headers:
            return ()
        named = ",".join(self.headers.getall("Content-Encoding")).lower().split(",")
        # They are listed in the order in which they were applied.
        codings = [coding.strip() for coding in reversed(named)]
        return tuple(coding for coding in codings if coding not in ("", "identity"))

    @property
    def content_type(self) -> str:
        """Without its parameters, in lower case; empty if there is none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """Of this body; aiohttp has seen to it that it is a number."""
        text = self.headers.get("Content-Length")
        return None if text is None else int(text)

    async def discard(self) -> None:
        """Lets go of it, keeping the connection if the rest of the body is short and comes soon."""
        try:
            if not self.content.at_eof():
                await self._read_away()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            log.debug("upstream.discard", reason=f"{self.where}: {type(error).__name__}")
        finally:
            # Closes the connection unless the body was read to its end.
            self.close()

    async def _read_away(self) -> None:
        async with asyncio.timeout(_DISCARDING):
            left = _DISCARDED
            while left > 0 and (data := await self.content.readany()):
                left -= len(data)


def where(upstream: str, start: Url, url: Url) -> str:
    """For errors: who was asked, and for what."""
    return f"{upstream}: {start}" + ("" if url is start else f" (redirected to {url})")
