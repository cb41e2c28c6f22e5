"""Whole responses in one write, past most of aiohttp.

An aiohttp response costs more than finding out what a warm narinfo says: its headers are collected,
completed, checked and serialised, though for a short body all of them are known. What cannot be
said that simply (an end of the connection, HTTP/1.0, HEAD, streams) is left to aiohttp.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http import HttpVersion11

from tvixstore.http.answers import Answer

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}


class _Sent(web.StreamResponse):
    """What aiohttp gets to see of a response that is on the wire already."""

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        return None


# One for all, as it holds nothing of any request: to be returned once `send` was called.
SENT = _Sent()


class _Clock:
    """The Date header, formatted once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_clock = _Clock()


def suits(request: web.BaseRequest, answer: Answer) -> bool:
    """Whether `answer` to `request` can be sent by `send`."""
    return (
        bool(answer.body)
        and answer.stream is None
        and request.method == "GET"
        and request.version == HttpVersion11
        and request.keep_alive
    )


async def send(request: web.BaseRequest, answer: Answer, server: str) -> None:
    """Writes all of it, and the name of the `server`; raises `ConnectionError`."""
    await request.writer.write(_whole(answer, server))


def closing(answer: Answer, server: str) -> bytes:
    """All of `answer`, for a connection that ends with it."""
    return _whole(answer, server, "Connection: close")


def _whole(answer: Answer, server: str, *more: str) -> bytes:
    head = [
        _LINES[answer.status],
        f"Content-Length: {len(answer.body)}",
        f"Date: {_clock.text()}",
        f"Server: {server}",
        *more,
        # Values are ours, or made printable where the answer was: nothing ends a line early.
        *[f"{name}: {value}" for name, value in answer.headers.items()],
        "\r\n",
    ]
    return "\r\n".join(head).encode() + answer.body
