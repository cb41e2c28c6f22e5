"""How the daemon is: whether it lives, whether it serves, and in numbers."""

from __future__ import annotations

import json
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tvixstore.http.answers import TEXT, Answer
from tvixstore.http.call import Call
from tvixstore.log import redact


async def healthz(call: Call, wanted: None) -> Answer:
    return Answer(HTTPStatus.OK, "present", {"Content-Type": TEXT}, b"alive\n")


async def readyz(call: Call, wanted: None) -> Answer:
    """Whether it can be used, for everybody; upstreams' names and troubles, for its users."""
    reason = "the daemon is stopping" if call.draining else call.front.ready()
    stranger = call.front.access.check("read", call.headers.get("Authorization")) is not None
    state = {
        "ready": reason is None,
        "reason": _clean(reason),
        "substituters": [
            {
                "name": upstream.name,
                "state": "up" if upstream.up else "down",
                "since": upstream.since,
                "last_error": _clean(upstream.last_error),
            }
            for upstream in (() if stranger else call.front.status())
        ],
    }
    return Answer(
        HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE,
        "present" if reason is None else "unknown",
        {"Content-Type": "application/json", "Cache-Control": "no-store"},
        json.dumps(state).encode() + b"\n",
        reason=reason,
    )


async def metrics(call: Call, wanted: None) -> Answer:
    call.front.refresh_metrics()
    body = generate_latest(call.front.metrics.registry)
    return Answer(HTTPStatus.OK, "present", {"Content-Type": CONTENT_TYPE_LATEST}, body)


def _clean(text: str | None) -> str | None:
    return None if text is None else redact(text)
