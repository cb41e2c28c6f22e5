"""Requests in, responses out: finds the route, has its answer sent, and tells what came of it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tvixstore.access import Right
from tvixstore.errors import InvalidData, StoreError
from tvixstore.explain import path_hash_of
from tvixstore.http import ready
from tvixstore.http.account import Account
from tvixstore.http.answers import Answer, absent, broken, invalid, not_taken, text, unknown
from tvixstore.http.call import Call
from tvixstore.http.denials import crowded, denial, slow
from tvixstore.http.front import HttpFront
from tvixstore.http.incoming import Incoming
from tvixstore.http.narinfo import NarInfoTexts
from tvixstore.http.routes import Route, find
from tvixstore.http.sending import SERVER, response_of, send
from tvixstore.http.slow import SlowClient
from tvixstore.log import Logger
from tvixstore.metrics import FrontMeter
from tvixstore.policy.seldom import Seldom
from tvixstore.policy.uses import Uses

if TYPE_CHECKING:
    from aiohttp import web

_log = Logger("tvixstore.http")

_PUBLIC = "public"
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


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
        account = Account(began)
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
            return await send(request, answer, account, draining=self.draining)
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
        self._settle(Account.refused(answer, len(answer.body)), 0.0)
        response = response_of(answer)
        response.force_close()
        return response

    def turn_away(self) -> bytes:
        """What a connection too many is told, before it has asked anything."""
        self._crowds.note(what="connections")
        answer = crowded("connections")
        self._settle(Account.refused(answer), 0.0)
        return ready.closing(answer, SERVER)

    def time_out(self, seconds: float) -> bytes:
        """What a client is told that does not come to the end of its request's head."""
        answer = slow(f"the head of the request was not complete after {seconds:g} s")
        self._settle(Account.refused(answer), seconds)
        return ready.closing(answer, SERVER)

    async def _answer(self, front: HttpFront, request: web.BaseRequest, account: Account) -> Answer:
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

    def _settle(self, account: Account, seconds: float) -> None:
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


def _not_allowed(route: Route) -> Answer:
    allowed = ", ".join(route.methods)
    return text(
        HTTPStatus.METHOD_NOT_ALLOWED, "invalid", f"here there is only {allowed}", Allow=allowed
    )


def _split(target: str) -> tuple[str, str]:
    """Path and query of a request's target, which proxies may send with its origin."""
    if (origin := _ORIGIN.match(target)) is not None:
        target = target[origin.end() :]
    path, _, query = target.partition("?")
    # None of our names needs escapes; who writes them anyway means the same.
    return (unquote(path) if "%" in path else path), query
