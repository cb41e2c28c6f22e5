"""Which proxy a request goes through: the one configured, or what the environment says.

`https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, also in capitals, as curl reads them.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix.credentials import basic
from tvixstore.pathinfo.nix.urls import Url
from tvixstore.policy.lru import Lru

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of an upstream, and of those that it redirects to.
_ORIGINS = 64


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy; `authorization` is the value of Proxy-Authorization."""

    url: Url
    authorization: str | None = field(default=None, repr=False)


def _environment() -> Mapping[str, str]:
    # A copy: `os.environ` encodes and decodes at each look, and every request takes six.
    return dict(os.environ)


@dataclass(frozen=True, slots=True)
class Proxies:
    """`configured` is for every request: `None` asks the environment, an empty one goes direct."""

    # Of the upstream, for errors.
    name: str
    configured: str | None = field(default=None, repr=False)
    environment: Mapping[str, str] = field(default_factory=_environment, repr=False)
    # What was found for an origin: none of this changes.
    _known: Lru[tuple[str, str, int], tuple[Proxy | None]] = field(
        default_factory=lambda: Lru(_ORIGINS), init=False, repr=False, compare=False
    )

    def choose(self, url: Url) -> Proxy | None:
        """The proxy for `url`, if any. Raises `Unavailable` for one that cannot be used."""
        known = self._known.get(url.origin)
        if known is None:
            known = (self._find(url),)
            self._known.put(url.origin, known)
        return known[0]

    def _find(self, url: Url) -> Proxy | None:
        if self.configured is not None:
            return self._parse(self.configured, "proxy")
        if _excepted(self._variable("no_proxy"), url):
            return None
        for variable in (f"{url.scheme}_proxy", "all_proxy"):
            if text := self._variable(variable):
                return self._parse(text, variable)
        return None

    def _variable(self, name: str) -> str:
        return self.environment.get(name) or self.environment.get(name.upper(), "")

    def _parse(self, text: str, source: str) -> Proxy | None:
        if not text:
            return None
        try:
            url = Url.parse(text if "://" in text else f"http://{text}")
        except ValueError as error:
            raise Unavailable(f"{self.name}: its {source} cannot be used: {error}") from error
        return Proxy(url, None if url.login is None else basic(*url.login))


def _excepted(no_proxy: str, url: Url) -> bool:
    return any(_matches(entry, url) for entry in re.split(r"[\s,]+", no_proxy) if entry)


def _matches(entry: str, url: Url) -> bool:
    """Whether one entry of NO_PROXY means `url`: `*`, domain, `.domain`, address, CIDR, `:port`."""
    if entry == "*":
        return True
    host, port = entry.lower(), ""
    if (found := re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", host)) is not None:
        host, port = found.groups()
    if port and int(port) != url.port:
        return False
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(url.host) in ipaddress.ip_network(host, strict=False)
    except ValueError:
        # One of them is a name.
        domain = host.removeprefix("*").strip(".")
        asked = url.host.rstrip(".")
        return bool(domain) and (asked == domain or asked.endswith("." + domain))
