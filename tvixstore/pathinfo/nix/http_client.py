"""HTTP, as polite and as careful as a cache deserves: mostly GET.

Redirects are followed here and not by aiohttp, because it is here that credentials stay behind: a
request that left its origin carries none from then on, even if it is sent back. URLs go out to the
letter, bodies come in as they are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import yarl
from aiohttp.http_exceptions import HttpProcessingError

from tvixstore import __version__
from tvixstore.errors import Unavailable
from tvixstore.log import Logger
from tvixstore.pathinfo.nix.answers import REDIRECTS, REFUSED
from tvixstore.pathinfo.nix.connector import Connector
from tvixstore.pathinfo.nix.credentials import Credentials
from tvixstore.pathinfo.nix.http_answer import Answer, where
from tvixstore.pathinfo.nix.http_errors import translate
from tvixstore.pathinfo.nix.http_get import Gets
from tvixstore.pathinfo.nix.proxies import Proxies, Proxy
from tvixstore.pathinfo.nix.resolver import PoolResolver
from tvixstore.pathinfo.nix.tls import client_context
from tvixstore.pathinfo.nix.urls import Url
from tvixstore.policy.timeout import Scope
from tvixstore.policy.tracing import here, note

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator, Mapping

    from tvixstore.pathinfo.nix.settings import UpstreamSettings
    from tvixstore.pools import Pools

USER_AGENT = f"tvixstore/{__version__}"
MAX_REDIRECTS = 10
# Longer than a client's pause between two batches, shorter than what servers usually keep.
_KEEP_ALIVE = 30.0
# What aiohttp may have read ahead of us, per connection; twice of it stops the sender.
_READ_AHEAD = 256 << 10
# Whoever got all of something may take so long, in seconds, to unpack it before it answers.
_DIGESTING = 600.0

log = Logger("tvixstore.pathinfo.nix.http")


class HttpClient:
    """The connections to one upstream, and to wherever it redirects."""

    def __init__(self, settings: UpstreamSettings, home: Url, pools: Pools) -> None:
        self._settings = settings
        self._pools = pools
        self._proxies = Proxies(settings.name, settings.proxy)
        self._credentials = Credentials(
            settings.name, home, pools.files, settings.netrc_file, settings.token_file
        )
        self._session: aiohttp.ClientSession | None = None
        self._gets: Gets | None = None
        self._tls: ssl.SSLContext | None = None
        self._closed = False
        # Whether it refused our credentials when it was last heard of.
        self._refused = False

    async def get(self, url: Url, headers: Mapping[str, str] | None = None) -> Answer:
        """The final answer, with its headers read; whoever gets it closes or discards it.

        Raises `Unavailable`, also when they are not there within the upstream's timeout.
        """
        try:
            with Scope(self._settings.timeout):
                return await self._follow(url, headers or {})
        except TimeoutError as error:
            raise Unavailable(
                f"{self._where(url)}: no answer within {self._settings.timeout:g} s"
            ) from error

    async def send(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        body: AsyncIterable[bytes] | None = None,
        *,
        asks: bool = False,
    ) -> Answer:
        """The answer to what is sent, a redirect among them; `body` as `Content-Length` says.

        With `asks`, the body waits for a word that it is wanted. Raises `Unavailable`, also when
        nothing of the body is taken, or no answer comes behind it, for the stall timeout.
        """
        loop, patience = asyncio.get_running_loop(), self._settings.stall_timeout
        authorization = await self._credentials.authorization(url)
        try:
            async with asyncio.timeout(patience) as stalled:

                async def taken(parts: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
                    async for part in parts:
                        stalled.reschedule(loop.time() + patience)
                        yield part
                    stalled.reschedule(loop.time() + max(patience, _DIGESTING))

                answer = await self._request(
                    *(url, url, headers, authorization),
                    method=method,
                    body=None if body is None else taken(body),
                    asks=asks,
                )
        except TimeoutError as error:
            raise Unavailable(f"{self._where(url)}: nothing happens for {patience:g} s") from error
        self._note_refusal(answer.where, answer.status)
        return answer

    async def aclose(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _follow(self, url: Url, headers: Mapping[str, str]) -> Answer:
        start, visited, trusted = url, {url.sent}, True
        while True:
            authorization = await self._credentials.authorization(url) if trusted else None
            answer = await self._request(start, url, headers, authorization)
            if answer.status not in REDIRECTS:
                if here() is not None:
                    note("http", f"{answer.status} from {_told(start, url)}")
                if self._refused or answer.status in REFUSED:
                    self._note_refusal(answer.where, answer.status)
                return answer
            location = answer.headers.get("Location", "")
            await answer.discard()
            url = self._next(answer, url, location)
            trusted = trusted and url.origin == start.origin
            if url.sent in visited:
                raise Unavailable(f"{answer.where}: it redirects in a circle, by {url}")
            visited.add(url.sent)
            if len(visited) > MAX_REDIRECTS + 1:
                raise Unavailable(f"{answer.where}: more than {MAX_REDIRECTS} redirects")

    def _next(self, answer: Answer, url: Url, location: str) -> Url:
        try:
            if not location:
                raise ValueError("it has no Location")
            return url.join(location)
        except ValueError as error:
            raise Unavailable(
                f"{answer.where}: its redirect cannot be followed: {error}"
            ) from error

    async def _request(
        self,
        start: Url,
        url: Url,
        headers: Mapping[str, str],
        authorization: str | None,
        *,
        method: str = "GET",
        body: AsyncIterable[bytes] | None = None,
        asks: bool = False,
    ) -> Answer:
        if authorization is not None:
            headers = {**headers, "Authorization": authorization}
        proxy = self._proxies.choose(url)
        session = self._open_session()
        uses_tls = "https" in (url.scheme, proxy and proxy.url.scheme)
        context = await self._tls_context() if uses_tls else True
        try:
            if proxy is None and method == "GET" and body is None:
                # Nearly all there is, and several times as fast.
                assert self._gets is not None
                reply = await self._gets.send(url, headers, context)
                return Answer(
                    *(reply.status, reply.headers, reply.content, reply.connection.close),
                    *(self._settings.name, start, url),
                )
            response = await session.request(
                method,
                yarl.URL(url.sent, encoded=True),
                data=body,
                expect100=asks,
                headers={**headers, **_proxy_headers(proxy, url, "http")},
                allow_redirects=False,
                proxy=None if proxy is None else yarl.URL(proxy.url.base),
                proxy_headers=_proxy_headers(proxy, url, "https"),
                ssl=context,
            )
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            asked = where(self._settings.name, start, url)
            if self._closed:
                # Whatever it looks like from inside.
                raise Unavailable(f"{asked}: it was closed here") from None
            if isinstance(error, aiohttp.ClientHttpProxyError):
                self._note_refusal(asked, error.status)
            failure = translate(asked, error)
            raise failure from failure.__cause__
        return Answer(
            *(response.status, response.headers, response.content, response.close),
            *(self._settings.name, start, url),
        )

    def _open_session(self) -> aiohttp.ClientSession:
        # Not in __init__: a session belongs to the loop that is running.
        if self._closed:
            raise Unavailable(f"{self._settings.name}: it was closed")
        if self._session is None:
            connector = Connector(
                resolver=PoolResolver(self._pools.dns),
                limit=self._settings.max_connections,
                keepalive_timeout=_KEEP_ALIVE,
            )
            headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
            timeout = aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=headers,
                timeout=timeout,
                auto_decompress=False,
                read_bufsize=_READ_AHEAD,
            )
            self._gets = Gets(connector, timeout, headers, _READ_AHEAD)
        return self._session

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            settings = self._settings
            self._tls = await self._pools.files.run(client_context, settings.name, settings.ca_file)
        return self._tls

    def _note_refusal(self, where: str, status: int) -> None:
        """Says once per outage, and loudly, that somebody has to do something."""
        refused = status in REFUSED
        if refused and not self._refused:
            log.error(
                "upstream.credentials_refused",
                node=self._settings.name,
                reason=f"{where}: status {status}; check its user and password, netrc_file, "
                "token_file and proxy",
            )
        elif self._refused and not refused:
            log.info("upstream.credentials_accepted", node=self._settings.name)
        self._refused = refused

    def _where(self, url: Url) -> str:
        return f"{self._settings.name}: {url}"


def _told(start: Url, url: Url) -> str:
    """A URL, and where its redirects led if there were any."""
    return str(url) if url is start else f"{url}, where {start} redirects to"


def _proxy_headers(proxy: Proxy | None, url: Url, scheme: str) -> dict[str, str]:
    """With http the request itself goes to the proxy; with https a CONNECT before it."""
    if proxy is None or proxy.authorization is None or url.scheme != scheme:
        return {}
    return {"Proxy-Authorization": proxy.authorization}
