"""The kinds of values that people write into a compose file: durations, sizes, addresses, URLs.

Each parser takes what TOML gave and raises a `ValueError` whose text says what is wrong with it and
what would be right; each formatter gives back what one would have written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tvixstore.log import redact

_DURATION = re.compile(r"(\d{1,20}(?:\.\d{1,20})?) ?(ms|s|m|h)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SIZE = re.compile(r"(\d{1,20})(\.\d{1,20})? ?([KMGT]iB|B)?")
_BYTES = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_NAME = re.compile(r"[A-Za-z0-9_:]([A-Za-z0-9._:-]*[A-Za-z0-9_:])?")

# No setting means anything beyond; a typo with too many digits does.
_LONGEST = 10 * 365 * 86400.0
_LARGEST = 1 << 60
# What fits into a socket's address on Linux, its closing NUL left out.
_LONGEST_SOCKET_PATH = 107


class Interpolated(str):
    """A string with the environment's values in it; `raw` is what the file says.

    Messages quote `raw`: what comes out of the environment is often a secret.
    """

    __slots__ = ("raw",)
    raw: str

    def __new__(cls, text: str, raw: str) -> Interpolated:
        made = super().__new__(cls, text)
        made.raw = raw
        return made


def quote(value: object) -> str:
    """`value` for a message: short, on one line, without secrets."""
    if isinstance(value, Interpolated):
        value = value.raw
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = redact(value)
        text = text if len(text) <= 80 else text[:77] + "…"
        escaped = text.encode("unicode_escape").decode() if not text.isprintable() else text
        return f'"{escaped}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return str(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a huge number"


def parse_duration(value: object) -> float:
    """Seconds from `"250ms"`, `"5s"`, `"2m"` or `"1h"`."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)) is not None:
        seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds > _LONGEST:
            raise ValueError(f"{quote(value)} is longer than ten years")
        return seconds
    example = 'write a duration such as "250ms", "5s", "2m" or "1h"'
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{quote(value)} has no unit: {example}")
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value):
        raise ValueError(f"{quote(value)} has no unit: {example}")
    raise ValueError(f"{quote(value)} is not a duration: {example}")


def format_duration(seconds: float) -> str:
    """`seconds` in the largest unit that leaves a whole number, or in seconds."""
    for unit, factor in _SECONDS.items():
        count = seconds / factor
        if count >= 1 and count == round(count, 9) and round(count, 9).is_integer():
            return f"{round(count)}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def parse_size(value: object) -> int:
    """Bytes from a number of them, or from `"256KiB"`, `"50GiB"`."""
    example = 'write a size such as "256KiB", "50GiB", or a number of bytes'
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)) is not None:
        unit = _BYTES[match[3] or "B"]
        size = int(match[1]) * unit + round(float(match[2] or 0) * unit)
    elif isinstance(value, str) and (match := re.fullmatch(r"([\d.]+) ?([KMGTkmgt])[Bb]?", value)):
        raise ValueError(f'{quote(value)} has no such unit: write "{match[1]}{match[2].upper()}iB"')
    else:
        raise ValueError(f"{quote(value)} is not a size: {example}")
    if not 0 <= size <= _LARGEST:
        raise ValueError(f"{quote(value)} is out of range: {example}")
    return size


def format_size(size: int) -> str:
    """`size` in the largest unit that leaves a whole number."""
    for unit, factor in _BYTES.items():
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return "0B"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a TCP host and port, a unix socket, or nowhere (`off`)."""

    kind: Literal["tcp", "unix", "off"]
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind == "off":
            return "off"
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: object, folder: Path) -> Address:
    """An ADDR: `host:port`, `[v6]:port`, `unix:/path` or `off`."""
    example = 'write "host:port", "[v6]:port", "unix:/path" or "off"'
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is not an address: {example}")
    if value == "off":
        return Address("off")
    if value.startswith("unix:"):
        return Address("unix", path=_socket_path(value.removeprefix("unix:"), folder))
    if "://" in value:
        raise ValueError(f"{quote(value)} is a URL, not an address: {example}")
    host, colon, port = value.rpartition(":")
    if not colon:
        raise ValueError(f"{quote(value)} has no port: {example}")
    if not host:
        raise ValueError(
            f'{quote(value)} names no host: write "127.0.0.1:{port}", '
            f'or "[::]:{port}" for every interface'
        )
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{quote(port)} is not a port: ports go from 0 (any free one) to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address("tcp", str(IPv6Address(host[1:-1])), int(port))
        except ValueError:
            raise ValueError(f"{quote(host)} is not an IPv6 address: {example}") from None
    if ":" in host:
        raise ValueError(f'{quote(value)} is ambiguous: write IPv6 addresses as "[{host}]:{port}"')
    if _HOST.fullmatch(host) is None or len(host) > 253:
        raise ValueError(f"{quote(host)} is not a host name or an IP address: {example}")
    return Address("tcp", host, int(port))


def _socket_path(text: str, folder: Path) -> str:
    path = str(parse_path(text, folder))
    if len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise ValueError(
            f"{quote(path)} is too long for a unix socket: {_LONGEST_SOCKET_PATH} bytes at most"
        )
    return path


def parse_path(value: object, folder: Path) -> Path:
    """A path, relative to `folder`, with `~` for the home directory."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{quote(value)} is not a path")
    if "\0" in value:
        raise ValueError(f"{quote(value)} has a NUL in it, which no path can have")
    path = Path(value)
    if value.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:
            raise ValueError(f"{quote(value)}: no home directory is known for it") from None
    return folder / path


def parse_name(value: object) -> str:
    """A node's name, which logs and metrics carry."""
    if not isinstance(value, str):
        raise ValueError(f"{quote(value)} is not a name: write a string")
    if _NAME.fullmatch(value) is None or len(value) > 255:
        raise ValueError(
            f"{quote(value)} is not a name: use letters, digits, dots, dashes, colons "
            "and underscores"
        )
    return value


def split_url(text: str) -> SplitResult:
    """`text` split, its host and port known to be readable."""
    if any(character <= " " or character == "\x7f" for character in text):
        raise ValueError(f"{quote(text)} has blanks or control characters in it")
    try:
        parts = urlsplit(text)
        # Both are parsed only when asked for.
        _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{quote(text)} is not a URL: {error}") from None
    return parts


GRPC_SCHEMES = ("grpc+http", "grpc+https", "grpc+unix")
GRPC_EXAMPLE = (
    'write "grpc+http://host:port", "grpc+https://host:port" or "grpc+unix:///path/to/socket"'
)


def is_grpc_url(text: str) -> bool:
    return text.partition("://")[0] in GRPC_SCHEMES


def check_grpc_url(text: str) -> None:
    """Raises a `ValueError` unless `text` is where a daemon answers gRPC."""
    parts = split_url(text)
    if parts.scheme not in GRPC_SCHEMES or "://" not in text:
        raise ValueError(f"{quote(text)} is not a URL that this takes: {GRPC_EXAMPLE}")
    if parts.fragment or parts.username is not None:
        raise ValueError(f"{quote(text)} has a user or a fragment in it: {GRPC_EXAMPLE}")
    if parts.scheme == "grpc+unix":
        if parts.netloc:
            raise ValueError(
                f'{quote(text)} names a host, and a unix socket has none: write "grpc+unix:///path"'
            )
        if len(parts.path) < 2:
            raise ValueError(f'{quote(text)} names no socket: write "grpc+unix:///path"')
    elif not parts.hostname:
        raise ValueError(f"{quote(text)} names no host: {GRPC_EXAMPLE}")
    elif parts.path:
        raise ValueError(
            f'{quote(text)} has a path after its host, "{parts.path}": leave it out, "/" too'
        )
    query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    for key, value in query:
        if key != "wait-connect" or value not in ("0", "1"):
            raise ValueError(
                f"{quote(text)} has a query that nobody knows: "
                'only "?wait-connect=1" may follow, to connect at start'
            )


def host_of(url: str) -> str:
    """The host in `url`, as a name for what is there; `file` of a folder, `grpc` of a socket."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or parts.scheme.partition("+")[0]
    except ValueError:
        return ""
    return host if _NAME.fullmatch(host) is not None else ""


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
