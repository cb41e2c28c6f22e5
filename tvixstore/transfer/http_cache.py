"""Writing a binary cache over HTTP: HEAD, and PUT of whole files, as Nix does it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from tvixstore.errors import ReadOnly, Unavailable
from tvixstore.nix import NarInfo
from tvixstore.pathinfo.nix import UpstreamSettings
from tvixstore.pathinfo.nix.answers import ABSENT, REDIRECTS, failure
from tvixstore.pathinfo.nix.http_answer import Answer
from tvixstore.pathinfo.nix.http_client import HttpClient
from tvixstore.pathinfo.nix.http_upstream import HttpUpstream, home_of
from tvixstore.pathinfo.nix.store_dir import CACHE_INFO
from tvixstore.policy.retry import Retry
from tvixstore.pools import Pools
from tvixstore.transfer.binary_cache import CACHE_INFO_TEXT, BinaryCache
from tvixstore.transfer.packing import Packed

_PIECE: Final = 1 << 20
_TYPES: Final = {"narinfo": "text/x-nix-narinfo", "nar": "application/x-nix-nar"}
# Whoever asks to wait longer than this, in seconds, is not waited for.
_RETRY: Final = Retry(attempts=5, min_delay=0.3, max_delay=30.0)
_WRITTEN: Final = frozenset({200, 201, 202, 204})
_DENIED: Final = frozenset({401, 403, 407})
_NOT_WRITABLE: Final = frozenset({405, 501})

# A bucket without the right to list says 403 of what is not there; and not all know HEAD.
_NOT_SEEN: Final = ABSENT | {403} | _NOT_WRITABLE

Body = Callable[[], AsyncGenerator[bytes, None]]


class HttpCache(BinaryCache):
    """The cache at `settings.url`; NARs are packed in the folder `incoming`."""

    def __init__(self, settings: UpstreamSettings, pools: Pools, incoming: Path) -> None:
        self.incoming = incoming
        self._settings = settings
        self._home = home_of(settings)
        self._upstream = HttpUpstream(settings, pools)
        self._client = HttpClient(settings, self._home, pools)
        self._pools = pools

    async def prepare(self) -> None:
        await self._upstream.check_store_dir()
        if not await self._exists(CACHE_INFO):
            await self._put_text(CACHE_INFO, CACHE_INFO_TEXT, "text/x-nix-cache-info")

    async def narinfo(self, path_hash: bytes) -> str | None:
        return await _RETRY.run(lambda: self._upstream.narinfo(path_hash))

    async def has(self, url: str) -> bool:
        return await self._exists(url)

    async def put_nar(self, packed: Packed) -> None:
        async def body() -> AsyncGenerator[bytes, None]:
            # No file stays open meanwhile: nobody closes what a request that broke off had begun.
            for start in range(0, packed.size, _PIECE):
                yield await self._pools.files.run(_read, packed.path, start)

        await self._put(packed.url, body, packed.size, _TYPES["nar"])

    async def put_narinfo(self, narinfo: NarInfo) -> None:
        name = f"{narinfo.store_path.digits}.narinfo"
        await self._put_text(name, str(narinfo), _TYPES["narinfo"])

    async def aclose(self) -> None:
        await self._client.aclose()
        await self._upstream.aclose()

    async def _put_text(self, name: str, text: str, content_type: str) -> None:
        data = text.encode()

        async def body() -> AsyncGenerator[bytes, None]:
            yield data

        await self._put(name, body, len(data), content_type)

    async def _put(self, name: str, body: Body, size: int, content_type: str) -> None:
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        attempt = 0

        async def put(answer: Answer) -> None:
            if answer.status not in _WRITTEN:
                raise self._refusal(answer)

        async def send() -> None:
            nonlocal attempt
            attempt += 1
            # A server that refuses may break the connection while we send, and what it said is
            # lost; so the next time it is waited for. Not the first: some never say "continue".
            asks = attempt % 2 == 0
            await self._send("PUT", name, put, headers, body, asks=asks)

        await _RETRY.run(send)

    async def _exists(self, name: str) -> bool:
        found = False

        async def look(answer: Answer) -> None:
            nonlocal found
            found = answer.status in (200, 204)
            if not found and answer.status not in _NOT_SEEN:
                raise self._refusal(answer)

        await _RETRY.run(lambda: self._send("HEAD", name, look))
        return found

    async def _send(
        self,
        method: str,
        name: str,
        judge: Callable[[Answer], Awaitable[None]],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        *,
        asks: bool = False,
    ) -> None:
        answer = await self._client.send(
            method, self._home.join(name), headers or {}, body and body(), asks=asks
        )
        try:
            await judge(answer)
        finally:
            await answer.discard()

    def _refusal(self, answer: Answer) -> ReadOnly | Unavailable:
        status = answer.status
        if status in _DENIED:
            return ReadOnly(
                f"{answer.where}: it refuses to be written to (status {status}): credentials are "
                "given by --to-netrc-file, --to-token-file, or as user:password@ in the URL"
            )
        if status in _NOT_WRITABLE:
            return ReadOnly(f"{answer.where}: it cannot be written to (status {status})")
        if status in REDIRECTS:
            return ReadOnly(
                f"{answer.where}: it sends us to {answer.headers.get('Location', 'nowhere')}: "
                "what is written follows no redirects; name that address"
            )
        error = failure(answer.where, status, answer.headers)
        if status < 500 and status not in (408, 429):
            return ReadOnly(f"{error}: it does not take this")
        return error


def _read(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), _PIECE, start)
