"""Where a daemon answers gRPC: `grpc+http://HOST[:PORT]`, `grpc+https://…`, `grpc+unix:///PATH`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from tvixstore.errors import ConfigError

# Of a URL that names none: as for any other `http` and `https`.
_PORTS: Final = {"grpc+http": 80, "grpc+https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A host and a port, or the path of a unix socket."""

    host: str | None = None
    port: int | None = None
    path: str | None = None
    tls: bool = False
    # Whether to connect at start, and to fail then if nobody answers.
    wait_connect: bool = False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return (
            f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"
        )

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises `ConfigError` for what is no such URL."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is not a URL: {error}") from None
        query = parse_qs(parts.query, keep_blank_values=True)
        waits = query.pop("wait-connect", ["0"])
        if query or len(waits) != 1 or waits[0] not in ("0", "1") or parts.fragment:
            raise ConfigError(f"{url!r}: only ?wait-connect=1 may follow")
        wait_connect = waits == ["1"]
        if parts.scheme == "grpc+unix":
            if parts.netloc or len(parts.path) < 2:
                raise ConfigError(f"{url!r} is not grpc+unix:///PATH")
            return cls(path=unquote(parts.path), wait_connect=wait_connect)
        if parts.scheme not in _PORTS:
            raise ConfigError(f"{url!r} is not grpc+http://…, grpc+https://… or grpc+unix:///…")
        if not host or parts.path or parts.username is not None:
            raise ConfigError(f"{url!r} is not {parts.scheme}://HOST[:PORT]")
        return cls(
            host=host,
            port=_PORTS[parts.scheme] if port is None else port,
            tls=parts.scheme == "grpc+https",
            wait_connect=wait_connect,
        )
