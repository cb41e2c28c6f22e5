"""HTTP URLs, kept to the letter.

Signed URLs break when anybody tidies them up, and a cache may key by whatever it wrote into its
narinfos. So a URL is only taken apart as far as needed to connect and to tell origins apart; its
path and query are sent as they came. `str()` is for messages: no credentials, no query.
"""

from __future__ import annotations

import ipaddress
import re
import string
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

_PORTS = {"http": 80, "https": 443}
_ABSOLUTE = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.I | re.S
)
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")
# What may stand in a request line; the rest (spaces, controls, beyond ASCII) is percent-encoded.
_SENDABLE = string.ascii_letters + string.digits + string.punctuation


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL. `target` is path and query, as they are sent; no fragment."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)
    # User and password, if the URL had any.
    login: tuple[str, str] | None = field(default=None, repr=False)
    # Scheme, host and port.
    base: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        object.__setattr__(self, "base", f"{self.scheme}://{host}{port}")

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises `ValueError`, saying what is wrong without quoting what may be secret."""
        found = _ABSOLUTE.fullmatch(text)
        if found is None:
            raise ValueError("it is not an absolute URL")
        scheme = found["scheme"].lower()
        if scheme not in _PORTS:
            raise ValueError(f"{scheme}:// is neither http:// nor https://")
        userinfo, _, address = found["authority"].rpartition("@")
        host, port = _split_address(address)
        user, _, password = userinfo.partition(":")
        return cls(
            scheme,
            host,
            _PORTS[scheme] if port is None else port,
            _sendable(found["rest"]),
            (unquote(user), unquote(password)) if userinfo else None,
        )

    def below(self, name: str) -> Url:
        """What is called `name` in this folder: letters, digits, dots and dashes alone."""
        return Url(self.scheme, self.host, self.port, self.target + name, self.login)

    def join(self, reference: str) -> Url:
        """What `reference` means here: absolute, or relative by RFC 3986, to the letter.

        Only what has `://` behind a scheme is absolute, as for Nix: `a:b` is a relative path.
        """
        if _ABSOLUTE.fullmatch(reference):
            return Url.parse(reference)
        if reference.startswith("//"):
            return Url.parse(f"{self.scheme}:{reference}")
        path = self.target.partition("?")[0]
        if reference.startswith("?"):
            reference = path + reference
        elif not reference.startswith("/"):
            reference = path[: path.rindex("/") + 1] + reference
        return Url(self.scheme, self.host, self.port, _sendable(reference), self.login)

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def sent(self) -> str:
        """All of it but the credentials. Its query may be secret."""
        return self.base + self.target

    def __str__(self) -> str:
        path, query, _ = self.target.partition("?")
        return self.base + path + ("?…" if query else "")


def _split_address(address: str) -> tuple[str, int | None]:
    """Host (lower case, no brackets) and port."""
    host, colon, digits = address.rpartition(":")
    if not colon or digits.endswith("]"):
        host, digits = address, ""
    if digits and not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 1 << 16):
        raise ValueError("its port is not one")
    if host.startswith("[") and host.endswith("]"):
        parsed = ipaddress.IPv6Address(host[1:-1])
        # To Python, anything is a zone.
        if parsed.scope_id is not None and not _ZONE.fullmatch(parsed.scope_id):
            raise ValueError("its host is not one")
        host = str(parsed)
    else:
        host = host.lower() if host.isascii() else host.encode("idna").decode("ascii")
        if not _HOST.fullmatch(host):
            raise ValueError("its host is not one")
    return host, int(digits) if digits else None


def _sendable(rest: str) -> str:
    """Path and query, ready for a request line."""
    path, mark, query = rest.partition("#")[0].partition("?")
    segments = path.removeprefix("/").split("/")
    if "." in segments or ".." in segments:
        segments = _without_dots(segments)
    return quote("/" + "/".join(segments) + mark + query, safe=_SENDABLE)


def _without_dots(segments: list[str]) -> list[str]:
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    # What ends in a dot segment names a folder.
    return [*kept, ""] if segments[-1] in (".", "..") else kept
