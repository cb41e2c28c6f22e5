"""What is under way, for whoever watches: one JSON document, or one a moment as an event stream."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from tvixstore.activity import LONGEST, SHORTEST, Watch
from tvixstore.errors import InvalidData
from tvixstore.http.answers import Answer
from tvixstore.http.denials import crowded
from tvixstore.streams import ByteStream

if TYPE_CHECKING:
    from tvixstore.http.call import Call

_EVERY: Final = 1.0
# Seconds after which a proxy on the way might think that nobody is there any more.
_HEARTBEAT: Final = 10.0
_ENDS: Final = json.dumps({"reason": "the daemon is stopping"})
_UNKEPT: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def parse_activity(text: str, query: str) -> float | None:
    """Seconds between events, or `None` for a single document."""
    values = dict(parse_qsl(query, keep_blank_values=True))
    if values.get("once", "0") not in ("", "0"):
        return None
    try:
        seconds = float(values.get("interval", _EVERY))
    except ValueError:
        seconds = 0.0
    if not SHORTEST <= seconds <= LONGEST:
        raise InvalidData(f"interval is a number of seconds from {SHORTEST:g} to {LONGEST:g}")
    return seconds


async def activity(call: Call, every: float | None) -> Answer:
    if every is None or "application/json" in call.headers.get("Accept", ""):
        headers = {"Content-Type": "application/json", **_UNKEPT}
        body = (await call.front.activity.text()).encode() + b"\n"
        return Answer(HTTPStatus.OK, "present", headers, body)
    headers = {"Content-Type": "text/event-stream", **_UNKEPT}
    if call.method == "HEAD":
        return Answer(HTTPStatus.OK, "present", headers, length=None)
    watch = Watch.begin(call.front.activity, "http", call.ended)
    if watch is None:
        return crowded("watchers")
    return Answer(
        HTTPStatus.OK, "present", headers, stream=_Events(watch, every), length=None, endless=True
    )


class _Events(ByteStream):
    """Snapshots as server-sent events, each made when it is asked for."""

    def __init__(self, watch: Watch, every: float) -> None:
        self._watch = watch
        self._every = every
        self._now = asyncio.get_running_loop().time
        # When the next one is due.
        self._due: float | None = None
        self._over = False

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if self._due is not None:
            left = max(0.0, self._due - self._now())
            if await self._watch.ended_within(min(left, _HEARTBEAT)):
                self._over = True
                return f"event: end\ndata: {_ENDS}\n\n".encode()
            if left > _HEARTBEAT:
                return b": still here\n\n"
        self._due = self._now() + self._every
        return f"event: activity\ndata: {await self._watch.text()}\n\n".encode()

    async def aclose(self) -> None:
        self._watch.close()
