"""Answers on their way out: in one write where that will do, as responses, and as streams."""

from __future__ import annotations

from aiohttp import web

from tvixstore.errors import StoreError
from tvixstore.http import ready
from tvixstore.http.account import Account
from tvixstore.http.answers import Answer
from tvixstore.http.body import Sender
from tvixstore.log import Logger
from tvixstore.streams import ByteStream

_log = Logger("tvixstore.http")

SERVER = "tvixstore"


async def send(
    request: web.BaseRequest, answer: Answer, account: Account, *, draining: bool
) -> web.StreamResponse:
    """Sends `answer`, and notes in `account` what got out. Never fails because the client left."""
    if not draining and ready.suits(request, answer):
        try:
            await ready.send(request, answer, SERVER)
        except ConnectionError:
            return ready.SENT
        account.bytes = len(answer.body)
        account.take(answer)
        return ready.SENT
    response = response_of(answer)
    if draining or answer.endless or _waits_to_be_asked(request):
        # Whoever asked before he sent his body, and was told no, sends none of it now.
        response.force_close()
    if answer.stream is not None:
        await _send_stream(request, response, answer, answer.stream, account)
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
    account.take(answer)
    return response


async def _send_stream(
    request: web.BaseRequest,
    response: web.StreamResponse,
    answer: Answer,
    stream: ByteStream,
    account: Account,
) -> None:
    sender = Sender(response, answer.length)
    try:
        # Closes the stream even if the headers do not get out.
        async with stream:
            await response.prepare(request)
            if answer.endless:
                account.take(answer)
            await sender.send(stream)
            await response.write_eof()
        account.take(answer)
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


def _waits_to_be_asked(request: web.BaseRequest) -> bool:
    """Whether the client has a body to send, and was not asked for it: it will never come."""
    return "Expect" in request.headers and not request.content.is_eof()


def response_of(answer: Answer) -> web.StreamResponse:
    headers = {**answer.headers, "Server": SERVER}
    if answer.length is None:
        # In chunks, or by HTTP/1.0 up to the end of the connection; no Content-Length to HEAD.
        return web.StreamResponse(status=answer.status, headers=headers)
    return web.Response(status=answer.status, body=answer.body, headers=headers)
