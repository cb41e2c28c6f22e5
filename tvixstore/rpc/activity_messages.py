"""The messages of `tvixstore.v1.Insight/Watch`, read as strictly as all others."""

from __future__ import annotations

from typing import Final

from tvixstore.activity import LONGEST, SHORTEST
from tvixstore.castore.message import Message, number_field, text_field
from tvixstore.errors import InvalidData
from tvixstore.rpc.messages import Form

_EVERY: Final = 1.0


def _encode_watch(every: float) -> bytes:
    return number_field(1, round(every * 1000))


def _decode_watch(data: bytes) -> float:
    """Seconds from one snapshot to the next."""
    seconds = Message(data, "WatchRequest").number(1, "interval_ms") / 1000
    if not seconds:
        return _EVERY
    if not SHORTEST <= seconds <= LONGEST:
        raise InvalidData(
            f"WatchRequest.interval_ms is from {SHORTEST * 1000:g} to {LONGEST * 1000:g}"
        )
    return seconds


def _decode_snapshot(data: bytes) -> str:
    return Message(data, "ActivitySnapshot").text(1, "document")


WATCH = Form("WatchRequest", _encode_watch, _decode_watch)
SNAPSHOT = Form("ActivitySnapshot", lambda document: text_field(1, document), _decode_snapshot)
