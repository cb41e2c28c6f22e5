"""A binary cache over HTTP: which answers are absent, which unknown, and how downloads go on."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp

from tvixstore.compression import decoder
from tvixstore.errors import ConfigError, CorruptData, Unavailable, Unsupported
from tvixstore.log import Logger
from tvixstore.nix import nixbase32
from tvixstore.pathinfo.nix.answers import ABSENT, failure, is_html
from tvixstore.pathinfo.nix.http_client import HttpClient
from tvixstore.pathinfo.nix.http_errors import translate
from tvixstore.pathinfo.nix.store_dir import CACHE_INFO, StoreDirCheck
from tvixstore.pathinfo.nix.upstream import MAX_NARINFO_BYTES, Body, Resume, Upstream
from tvixstore.pathinfo.nix.urls import Url
from tvixstore.policy.tracing import cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tvixstore.pathinfo.nix.http_answer import Answer
    from tvixstore.pathinfo.nix.settings import UpstreamSettings
    from tvixstore.pools import Pools

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:(\d{1,19})|\*)")

log = Logger("tvixstore.pathinfo.nix.http")


class HttpUpstream(Upstream):
    """A cache below `settings.url`, which is a folder with or without a slash at its end."""

    def __init__(self, settings: UpstreamSettings, pools: Pools) -> None:
        self.name = settings.name
        self._home = home_of(settings)
        self._client = HttpClient(settings, self._home, pools)
        self._stall_timeout = settings.stall_timeout
        self._pools = pools
        self._store_dir = StoreDirCheck(
            settings.name, lambda: self._document(self._home.join(CACHE_INFO))
        )
        # Downloads last, so they may not have all connections: lookups would wait for them.
        connections = settings.max_connections
        self._connections = asyncio.Semaphore(connections)
        self.max_downloads = max(1, connections - max(1, connections // 4))
        self._downloads = asyncio.Semaphore(self.max_downloads)

    def __repr__(self) -> str:
        return f"{self.name} {self._home}"

    async def narinfo(self, path_hash: bytes) -> str | None:
        return await self._document(self._home.below(f"{nixbase32.encode(path_hash)}.narinfo"))

    async def open_nar(self, url: str, resume: Resume | None = None) -> Body | None:
        try:
            target = self._home.join(url)
        except ValueError as error:
            raise CorruptData(f"{self.name}: the URL of a NAR cannot be used: {error}") from error
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._downloads)
            await held.enter_async_context(self._connections)
            answer, offset = await self._open(target, resume)
            held.callback(answer.close)
            length = _length(answer)
            if offset is None:
                if answer.status in ABSENT:
                    await answer.discard()
                    return None
                raise failure(answer.where, answer.status, answer.headers)
            return HttpBody(
                answer, offset, length, str(target), self._stall_timeout, held.pop_all()
            )

    async def open_file(self, path: str) -> Body | None:
        target = self._home.join(path)
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._connections)
            answer = await self._client.get(target)
            held.callback(answer.close)
            if answer.status != 200:
                # Absent, as it has no document; or it raises.
                await self._read_document(answer)
                return None
            if is_html(answer.content_type, b""):
                raise CorruptData(f"{answer.where}: it answered with a page (a portal's?)")
            length = _length(answer)
            return HttpBody(answer, 0, length, str(target), self._stall_timeout, held.pop_all())

    async def check_store_dir(self) -> None:
        await self._store_dir.check()

    async def aclose(self) -> None:
        await self._store_dir.aclose()
        await self._client.aclose()

    async def _open(self, target: Url, resume: Resume | None) -> tuple[Answer, int | None]:
        """An answer, and where its body begins; `None` if it is not one with a NAR in it."""
        if resume is not None and resume.offset:
            wanted = {"Range": f"bytes={resume.offset}-", "If-Range": resume.validator}
            answer = await self._client.get(target, wanted)
            if answer.status == 206 and _continues(answer, resume):
                return answer, resume.offset
            if answer.status not in (206, 412, 416):
                return answer, 0 if answer.status == 200 else None
            # It cannot go on there, or says that it does and does not: the whole, then.
            reason = f"{answer.where}: status {answer.status}"
            log.debug("upstream.not_resumed", node=self.name, reason=reason)
            answer.close()
        answer = await self._client.get(target)
        return answer, 0 if answer.status == 200 else None

    async def _document(self, url: Url) -> str | None:
        """A small text; `None` if it is absent."""
        async with self._connections:
            answer = await self._client.get(url)
            try:
                return await self._read_document(answer)
            finally:
                answer.close()

    async def _read_document(self, answer: Answer) -> str | None:
        if answer.status in ABSENT:
            await answer.discard()
            return None
        if answer.status not in (200, 403):
            error = failure(answer.where, answer.status, answer.headers)
            await answer.discard()
            raise error
        data = await self._read(answer)
        html = is_html(answer.content_type, data)
        if answer.status == 403:
            # What a bucket without the right to list says of a key that is not there. A page comes
            # from somebody in between, who does not know.
            if html:
                raise Unavailable(f"{answer.where}: it answered 403 with a page (a proxy's?)")
            return None
        if html:
            raise CorruptData(f"{answer.where}: it answered with a page (a portal's, a login's?)")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CorruptData(f"{answer.where}: it is not UTF-8") from error

    async def _read(self, answer: Answer) -> bytes:
        """The whole body, decoded; `CorruptData` if it is longer than a narinfo may be."""
        data = bytearray()
        try:
            async with asyncio.timeout(self._stall_timeout):
                while part := await answer.content.readany():
                    data += part
                    cost(len(part))
                    _check_length(answer, len(data))
        except TimeoutError as error:
            raise Unavailable(
                f"{answer.where}: its answer is not complete after {self._stall_timeout:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(answer.where, error, len(data), _length(answer)) from error
        if not answer.encodings:
            return bytes(data)
        return await self._pools.cpu.run(_decode, answer, bytes(data))


class HttpBody(Body):
    """A download under way. It holds a connection and the right to it until it is closed."""

    def __init__(
        self,
        answer: Answer,
        offset: int,
        length: int | None,
        url: str,
        stall_timeout: float,
        held: AsyncExitStack,
    ) -> None:
        self.offset = offset
        self.length = length
        self.encodings = answer.encodings
        # An encoding may have been made for this transfer alone, and no two are alike.
        self.validator = None if self.encodings else _validator(answer.headers)
        self.url = url
        self._answer = answer
        self._stall_timeout = stall_timeout
        self._held = held
        self._position = offset

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_timeout):
                data = await self._answer.content.readany()
        except TimeoutError as error:
            raise Unavailable(
                f"{self._answer.where}: no byte for {self._stall_timeout:g} s, "
                f"after {_amount(self._position, self.length)}"
            ) from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError is what aiohttp raises for a session that was closed meanwhile.
            raise _broken(self._answer.where, error, self._position, self.length) from error
        if data:
            self._position += len(data)
            return data
        if self.length is not None and self._position != self.length:
            raise Unavailable(
                f"{self._answer.where}: it ended after {_amount(self._position, self.length)}"
            )
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._held.aclose()


def home_of(settings: UpstreamSettings) -> Url:
    """Its URL as that of a folder. Raises `ConfigError`."""
    try:
        url = Url.parse(settings.url)
    except ValueError as error:
        raise ConfigError(f"{settings.name}: its url cannot be used: {error}") from error
    path, query, _ = url.target.partition("?")
    if query:
        raise ConfigError(f"{settings.name}: its url has a query, which a cache's cannot have")
    return url.join(path.rstrip("/") + "/")


def _check_length(answer: Answer, length: int) -> None:
    if length > MAX_NARINFO_BYTES:
        raise CorruptData(f"{answer.where}: it is longer than {MAX_NARINFO_BYTES} bytes")


def _decode(answer: Answer, data: bytes) -> bytes:
    """In a thread: undoes the content codings of a small document."""
    decoded = bytearray()
    try:
        undo = decoder("none", answer.encodings)
        for piece in undo.feed(data):
            decoded += piece
            _check_length(answer, len(decoded))
        undo.finish()
    except Unsupported as error:
        raise CorruptData(f"{answer.where}: {error}") from error
    except CorruptData as error:
        raise CorruptData(f"{answer.where}: its encoding is damaged: {error}") from error
    return bytes(decoded)


def _length(answer: Answer) -> int | None:
    """How long the whole is, whether this answer is all of it or a part."""
    if answer.status != 206:
        return answer.content_length
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return int(found[3]) if found is not None and found[3] else None


def _continues(answer: Answer, resume: Resume) -> bool:
    """Whether a 206 is what was asked for: the rest, from that byte, of that very thing."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or answer.encodings or int(found[1]) != resume.offset:
        return False
    size = int(found[2]) - resume.offset + 1
    if size < 1 or answer.content_length not in (None, size):
        return False
    if resume.validator.startswith('"'):
        return answer.headers.get("ETag") == resume.validator
    # An answer to If-Range may leave Last-Modified out.
    return answer.headers.get("Last-Modified", resume.validator) == resume.validator


def _validator(headers: Mapping[str, str]) -> str | None:
    etag = headers.get("ETag", "")
    # A weak one does not promise the same bytes.
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _amount(position: int, length: int | None) -> str:
    return f"{position} bytes of {'an unknown number' if length is None else length}"


def _broken(where: str, error: Exception, position: int, length: int | None) -> Unavailable:
    """For a body that did not come whole."""
    return translate(f"{where}: after {_amount(position, length)}", error)
