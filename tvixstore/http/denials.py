"""Answers for those who may not do that, are too many, or too slow."""

from __future__ import annotations

import re
from http import HTTPStatus

from tvixstore.access import Denied
from tvixstore.http.answers import Answer, text

# Seconds: what Retry-After says where others have to be done first.
_RETRY_AFTER = 2
# Who takes 401 and 403 for "absent", and remembers that for an hour: Nix before 2.35, and Lix.
_MISREADING = re.compile(r"\b(?:Nix/(?:[01]\.|2\.(?:\d|[12]\d|3[0-4])(?!\d))|Lix/)")


def denial(denied: Denied, method: str, agent: str) -> Answer:
    """For whoever may not do that, in a form that his client tells him.

    401 where other credentials may help, and 403 where they don't. Of 511 Nix before 2.35 says what
    it is and why, and stops; of the others it does so for uploads only.
    """
    if method in ("GET", "HEAD") and _MISREADING.search(agent) is not None:
        status = HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED
    else:
        status = HTTPStatus.UNAUTHORIZED if denied.anonymous else HTTPStatus.FORBIDDEN
    headers = {"Cache_Control": "no-store"}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW_Authenticate"] = 'Basic realm="tvixstore", Bearer realm="tvixstore"'
    return text(status, "refused", denied.reason, **headers)


def crowded(what: str) -> Answer:
    """Others have to be done first."""
    return text(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unknown",
        f"too many {what} at once: try again",
        Retry_After=str(_RETRY_AFTER),
        Cache_Control="no-store",
    )


def slow(reason: str) -> Answer:
    """For a client that keeps us waiting for what it said it would send."""
    return text(HTTPStatus.REQUEST_TIMEOUT, "invalid", reason)
