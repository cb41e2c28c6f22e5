"""What went wrong on the wire, in words: every error of aiohttp is translated here.

The cause is kept, unless its own text would give a secret away: aiohttp quotes whole URLs.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from tvixstore.errors import Unavailable, Unreachable
from tvixstore.log import redact

Explain = Callable[[Any], str]


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _host(error: aiohttp.ClientConnectorError) -> str:
    host = f"[{error.host}]" if ":" in error.host else error.host
    return f"{host}:{error.port}"


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    why = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else str(found)
    return f"the certificate of {error.host}:{error.port} is not to be trusted: {why} (see ca_file)"


# The first row that fits is taken: what is special comes before what is general.
_EXPLANATIONS: list[tuple[type[BaseException], Explain]] = [
    (aiohttp.ClientConnectorCertificateError, _certificate),
    (
        aiohttp.ClientConnectorDNSError,
        lambda error: f"{error.host} cannot be resolved: {_reason(error.os_error)}",
    ),
    (
        aiohttp.ClientProxyConnectionError,
        lambda error: f"no connection to its proxy {_host(error)}: {_reason(error.os_error)}",
    ),
    (
        aiohttp.ClientConnectorSSLError,
        lambda error: f"no TLS with {_host(error)}: {_reason(error.os_error)}",
    ),
    (
        aiohttp.ClientConnectorError,
        lambda error: f"no connection to {_host(error)}: {_reason(error.os_error)}",
    ),
    (
        aiohttp.ClientHttpProxyError,
        lambda error: (
            "its proxy demands other credentials (status 407)"
            if error.status == 407
            else f"its proxy refuses to connect us (status {error.status})"
        ),
    ),
    (aiohttp.ConnectionTimeoutError, lambda _: "no connection in time (connect_timeout)"),
    (aiohttp.ServerDisconnectedError, lambda _: "it closed the connection without an answer"),
    (aiohttp.ClientResponseError, lambda error: f"its answer is not HTTP: {_short(error.message)}"),
    (HttpProcessingError, lambda error: f"its answer is not HTTP: {_short(error.message)}"),
    (aiohttp.ClientPayloadError, lambda _: "it broke the connection"),
    (OSError, _reason),
    (RuntimeError, lambda _: "it was closed here"),
]


def _short(message: str) -> str:
    """aiohttp quotes the bad line with a marker below it; the first line says what it is."""
    return redact(message.strip().partition("\n")[0][:200])


def translate(where: str, error: Exception) -> Unavailable:
    """`error` (of aiohttp, the system or ssl) as ours. `where` names upstream and URL."""
    for kind, explain in _EXPLANATIONS:
        if isinstance(error, kind):
            late = isinstance(error, aiohttp.ConnectionTimeoutError)
            translated = (Unreachable if late else Unavailable)(f"{where}: {explain(error)}")
            break
    else:
        translated = Unavailable(f"{where}: {type(error).__name__}")
    translated.__cause__ = _harmless(error)
    return translated


def _harmless(error: BaseException | None) -> BaseException | None:
    """`error`, or the first of its causes whose text has no secrets in it."""
    while error is not None and redact(str(error)) != str(error):
        error = error.__cause__
    return error
