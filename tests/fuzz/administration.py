"""The messages of the Admin service, and what a pin is kept as."""

from __future__ import annotations

from typing import Any

from blake3 import blake3

from tests.fuzz.target import Target, stays
from tests.fuzz.wire import form
from tvixstore.nix import StorePath
from tvixstore.pathinfo import Pin
from tvixstore.pathinfo.pins import decode_pin, encode_pin
from tvixstore.rpc import activity_messages, insight_messages
from tvixstore.rpc import admin_messages as messages
from tvixstore.upkeep import (
    KINDS,
    OUTCOMES,
    Finding,
    Pinned,
    PinRequest,
    Progress,
    Summary,
    VerifyRequest,
)

_PATH = StorePath(bytes(range(20)), "hello-2.12")
_PIN = Pin(_PATH, 1_700_000_000, "for the release")


def _decode_pin(data: bytes) -> Pin:
    """With the checksum that it needs to get any further."""
    return decode_pin(_PATH.hash, b"\1" + blake3(data).digest(8) + data)


ADMINISTRATION: dict[str, Target[Any]] = {
    "admin-pin": form(messages.PIN, PinRequest(_PATH, "", False), PinRequest(_PATH, None, True)),
    "admin-pinned": form(messages.PINNED, Pinned(_PIN, 3, 1 << 40, (_PATH,), 2)),
    "admin-unpin": form(messages.UNPIN, _PATH),
    "admin-forget": form(messages.FORGET, [_PATH.hash, _PATH.hash]),
    "admin-forgotten": form(messages.FORGOTTEN, 3),
    "admin-verify": form(messages.VERIFY, VerifyRequest(True, (_PATH, _PATH))),
    "admin-event": form(
        messages.EVENT,
        Progress("chunks", 5, None, 1 << 33),
        Progress("chunks", 5, 0, 0),
        Finding(KINDS[0], "key", "reason", OUTCOMES[0]),
        Summary(),
    ),
    "watch": form(activity_messages.WATCH, 0.5, 20.0),
    "activity-snapshot": form(activity_messages.SNAPSHOT, '{"time":1}'),
    "explain": form(
        insight_messages.EXPLAIN,
        insight_messages.Explain(_PATH.hash),
        insight_messages.Explain(_PATH.hash, True),
    ),
    "explanation": form(insight_messages.EXPLANATION, "{}"),
    "pin-row": Target(
        _decode_pin,
        [encode_pin(_PIN)[9:]],
        stays(encode_pin, lambda record: decode_pin(_PATH.hash, record)),
    ),
}
