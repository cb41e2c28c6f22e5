"""How one upstream is reached: what `[[substituters]]` says about its connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """Times in seconds. `repr` shows no credentials: the URLs are left out of it."""

    url: str
    # Names the upstream in logs, metrics and errors.
    name: str
    # To the response's headers, each attempt, redirects included; waiting for a free connection
    # is not counted.
    timeout: float = 5.0
    # To an established connection: name resolution, proxy and TLS included.
    connect_timeout: float = 2.0
    # Without a byte.
    stall_timeout: float = 20.0
    max_connections: int = 32
    netrc_file: Path | None = None
    token_file: Path | None = None
    # Trusted in addition to the system's.
    ca_file: Path | None = None
    # `None` does what the environment says, an empty one goes direct.
    proxy: str | None = None

    def __repr__(self) -> str:
        return f"UpstreamSettings(name={self.name!r})"
