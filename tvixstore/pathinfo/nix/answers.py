"""What an upstream's answer means, beyond 200: statuses, Retry-After, pages made for people."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from tvixstore.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

REDIRECTS = frozenset({301, 302, 303, 307, 308})
ABSENT = frozenset({404, 410})
REFUSED = frozenset({401, 407})
_BUSY = frozenset({408, 429})

# An upstream that wants to be left alone for a day is asked again after this many seconds.
MAX_RETRY_AFTER = 300.0

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")
_SNIFFED = 512


def failure(where: str, status: int, headers: Mapping[str, str]) -> Unavailable:
    """The error for a status that is no answer. `where` names upstream and URL."""
    if status in REFUSED:
        return Unavailable(f"{where}: it refuses our credentials (status {status})")
    if status in _BUSY or status >= 500:
        wait = retry_after(headers.get("Retry-After"))
        asked = "" if wait is None else f"; it asks to come back in {wait:.0f} s"
        return Unavailable(f"{where}: it answered {status}{asked}", retry_after=wait)
    return Unavailable(f"{where}: it answered {status}")


def retry_after(text: str | None) -> float | None:
    """Seconds, from either form of Retry-After; `None` if there is none that makes sense."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Short of the limit on the digits of an int.
        return min(float(text[:20]), MAX_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    # A date is by the wall clock: that is all an upstream and we have in common.
    return min(max((date - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER)


def is_html(content_type: str, start: bytes) -> bool:
    """Whether this is a page for people: from a proxy, a portal, a login."""
    if content_type.lower() in _HTML_TYPES:
        return True
    head = start[:_SNIFFED].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return head.startswith(_HTML_STARTS) or (head.startswith(b"<?xml") and b"<html" in head)
