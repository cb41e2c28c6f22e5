"""Requests in, responses out: finds the route, sends its answer, and accounts for what was sent."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from time import perf_counter
from urllib.parse import unquote

from aiohttp import web

from tvixstore.access import Right
from tvixstore.errors import InvalidData, StoreError
from tvixstore.explain import Request, path_hash_of
from tvixstore.http import ready
from tvixstore.http.answers import Answer, absent, broken, invalid, not_taken, text, unknown
from tvixstore.http.body import Sender
from tvixstore.http.call import Call
from tvixstore.http.denials import crowded, denial, slow
from tvixstore.http.front import HttpFront
from tvixstore.http.incoming import Incoming
from tvixstore.http.narinfo import NarInfoTexts
from tvixstore.http.routes import Route, find
from tvixstore.http.slow import SlowClient
from tvixstore.log import Logger
from tvixstore.metrics import FrontMeter
from tvixstore.policy.seldom import Seldom
from tvixstore.policy.tracing import Label
from tvixstore.policy.uses import Uses
from tvixstore.streams import ByteStream

_log = Logger("tvixstore.http")

# What nginx calls a request whose client left; it is never sent.
CLIENT_LEFT = 499
_SERVER = "tvixstore"
_PUBLIC = "public"
_FRONT = Label("http", "request")
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


class _Account(Request):
    """What is told of a request when it is over. Its defaults are the class's: it is made often."""

    call = ""
    route = "other"
    key = ""
    status: int = CLIENT_LEFT
    outcome: str = "cancelled"
    # It can be explained afterwards.
    is_kept = False

    def __init__(self, began: float) -> None:
        self.label = _FRONT
        self.began = began


class Dispatcher:
    """Serves the requests of one listener; `running` are the tasks that do so right now."""

    def __init__(self, front: HttpFront) -> None:
        self.running: set[asyncio.Task[None]] = set()
        # Set when the door is about to close.
        self.ended = asyncio.Event()
        # Set when the last request is over, after that.
        self.drained = asyncio.Event()
        self.limits = front.limits
        self._front = front
        self._texts = NarInfoTexts(front.nar_compression)
        self._meter = FrontMeter(front.metrics, "http")
        self._numbers = count(1)
        self._crowds = Seldom(_log, "limit.reached")
        front.activity.requests["http"] = lambda: len(self.running)

    @property
    def draining(self) -> bool:
        return self.ended.is_set()

    def change(self, front: HttpFront) -> None:
        """Requests from now on are of `front`, which has the same limits and access; those that
        run are of the one that they began with."""
        if front.nar_compression != self._front.nar_compression:
            self._texts = NarInfoTexts(front.nar_compression)
        self._front = front

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The handler that aiohttp calls. The response is on the wire when it returns."""
        # Not the loop's time: uvloop's has a resolution of 1 ms, and a warm answer takes less.
        began = perf_counter()
        account = _Account(began)
        front = self._front
        uses: Uses | None = front.uses
        front.uses.begin()
        # The one that runs here; asking asyncio for it costs more than a lookup in the index.
        task = request.task
        self.running.add(task)
        try:
            answer = await self._answer(front, request, account)
            if answer.endless:
                front.uses.end()
                uses = None
                # What it has would stay in memory for as long as somebody watches.
                del front
            return await self._send(request, answer, account)
        finally:
            if uses is not None:
                uses.end()
            self.running.discard(task)
            if not self.running and self.ended.is_set():
                self.drained.set()
            self._settle(account, perf_counter() - began)

    def refuse(self, status: int, reason: str) -> web.StreamResponse:
        """The response to what is no HTTP request; the connection is of no further use."""
        answer = text(status, "invalid", reason)
        self._settle(_refused(answer, len(answer.body)), 0.0)
        response = _response_of(answer)
        response.force_close()
        return response

    def turn_away(self) -> bytes:
        """What a connection too many is told, before it has asked anything."""
        self._crowds.note(what="connections")
        answer = crowded("connections")
        self._settle(_refused(answer), 0.0)
        return ready.closing(answer, _SERVER)

    def time_out(self, seconds: float) -> bytes:
        """What a client is told that does not come to the end of its request's head."""
        answer = slow(f"the head of the request was not complete after {seconds:g} s")
        self._settle(_refused(answer), seconds)
        return ready.closing(answer, _SERVER)

    async def _answer(
        self, front: HttpFront, request: web.BaseRequest, account: _Account
    ) -> Answer:
        path, query = _split(request.raw_path)
        found = find(path)
        if found is None:
            # That there is nothing is for those who may ask, too.
            return self._refusal(request, "read") or absent("nothing is served under this path")
        route, account.key = found
        account.route = route.name
        method = route.methods.get(request.method)
        if method is None:
            refusal = self._refusal(request, route.methods["GET"].right)
            return refusal or _not_allowed(route)
        if (refusal := self._refusal(request, method.right)) is not None:
            return refusal
        if method.right == "write" and front.inbox is None:
            return text(HTTPStatus.NOT_IMPLEMENTED, "invalid", "nothing is uploaded to this cache")
        try:
            wanted = method.parse(account.key, query)
        except InvalidData as error:
            return invalid(str(error))
        if route.told is not None and method.right == "read":
            path_hash = path_hash_of(wanted)
            if path_hash is not None:
                account.path_hash, account.call, account.is_kept = path_hash, method.call, True
                front.explanations.begin(route.told, account)
        incoming = Incoming(request)
        call = Call(front, self._texts, request.method, request.headers, incoming, self.ended)
        try:
            return self._for_its_reader(await method.answer(call, wanted))
        except SlowClient as error:
            return slow(str(error))
        except StoreError as error:
            return not_taken(error) if method.right == "write" else unknown(error)
        except ConnectionError:
            # While its body was read: there is nobody to answer to.
            return invalid("the client left")
        except Exception as error:
            _log.error("request.failed", exc_info=error, route=route.name, key=account.key)
            return broken()

    def _for_its_reader(self, answer: Answer) -> Answer:
        """Where credentials are asked for, no cache on the way may hand it to others."""
        kept = answer.headers.get("Cache-Control", "")
        if not kept.startswith(_PUBLIC) or self._front.access.check("read", None) is None:
            return answer
        private = f"private{kept.removeprefix(_PUBLIC)}"
        return replace(answer, headers={**answer.headers, "Cache-Control": private})

    def _refusal(self, request: web.BaseRequest, right: Right | None) -> Answer | None:
        """Why `request`, which takes `right`, goes no further; `None` if it does."""
        headers = request.headers
        denied = self._front.access.check(right, headers.get("Authorization"))
        if denied is not None:
            return denial(denied, request.method, headers.get("User-Agent", ""))
        # Those who ask how it is get an answer in any case.
        if right is not None and len(self.running) > self._front.limits.requests:
            self._crowds.note(what="requests")
            return crowded("requests")
        return None

    async def _send(
        self, request: web.BaseRequest, answer: Answer, account: _Account
    ) -> web.StreamResponse:
        if not self.draining and ready.suits(request, answer):
            try:
                await ready.send(request, answer, _SERVER)
            except ConnectionError:
                return ready.SENT
            account.bytes = len(answer.body)
            _take(account, answer)
            return ready.SENT
        response = _response_of(answer)
        if self.draining or answer.endless or _waits_to_be_asked(request):
            # Whoever asked before he sent his body, and was told no, sends none of it now.
            response.force_close()
        if answer.stream is not None:
            await self._send_stream(request, response, answer, answer.stream, account)
            return response
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            return response
        if request.content.exception() is not None:
            # aiohttp would read the rest of a body that is not coming, and log that as our bug.
            request.protocol.force_close()
        if request.method != "HEAD":
            account.bytes = len(answer.body)
        _take(account, answer)
        return response

    async def _send_stream(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        answer: Answer,
        stream: ByteStream,
        account: _Account,
    ) -> None:
        sender = Sender(response, answer.length)
        try:
            # Closes the stream even if the headers do not get out.
            async with stream:
                await response.prepare(request)
                if answer.endless:
                    _take(account, answer)
                await sender.send(stream)
                await response.write_eof()
            _take(account, answer)
        except ConnectionError:
            return
        except Exception as error:
            # The headers promised more: an end that looks clean would be a lie.
            if request.transport is not None:
                request.transport.abort()
            account.status, account.outcome = answer.status, "broken"
            account.reason = str(error)
            _log.warning(
                "request.broken_off",
                route=account.route,
                key=account.key,
                reason=str(error),
                bytes=sender.sent,
                of=answer.length,
            )
            if not isinstance(error, StoreError):
                _log.error("request.failed", exc_info=error, route=account.route, key=account.key)
        finally:
            account.bytes = sender.sent

    def _settle(self, account: _Account, seconds: float) -> None:
        self._meter.observe(account.route, account.status, account.outcome, seconds, account.bytes)
        if account.is_kept:
            self._front.explanations.end(account, account.began + seconds)
        if self._front.access_log:
            _log.info(
                "request",
                request=next(self._numbers),
                route=account.route,
                key=account.key or None,
                status=account.status,
                outcome=account.outcome,
                reason=account.reason,
                bytes=account.bytes,
                ms=round(seconds * 1000, 3),
            )


def _take(account: _Account, answer: Answer) -> None:
    account.status, account.outcome, account.reason = answer.status, answer.outcome, answer.reason


def _refused(answer: Answer, sent: int = 0) -> _Account:
    """Of what never became a request."""
    account = _Account(perf_counter())
    _take(account, answer)
    account.bytes = sent
    return account


def _not_allowed(route: Route) -> Answer:
    allowed = ", ".join(route.methods)
    return text(
        HTTPStatus.METHOD_NOT_ALLOWED, "invalid", f"here there is only {allowed}", Allow=allowed
    )


def _waits_to_be_asked(request: web.BaseRequest) -> bool:
    """Whether the client has a body to send, and was not asked for it: it will never come."""
    return "Expect" in request.headers and not request.content.is_eof()


def _response_of(answer: Answer) -> web.StreamResponse:
    headers = {**answer.headers, "Server": _SERVER}
    if answer.length is None:
        # In chunks, or by HTTP/1.0 up to the end of the connection; no Content-Length to HEAD.
        return web.StreamResponse(status=answer.status, headers=headers)
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def _split(target: str) -> tuple[str, str]:
    """Path and query of a request's target, which proxies may send with its origin."""
    if (origin := _ORIGIN.match(target)) is not None:
        target = target[origin.end() :]
    path, _, query = target.partition("?")
    # None of our names needs escapes; who writes them anyway means the same.
    return (unquote(path) if "%" in path else path), query
