"""Who we say that we are: user and password in the URL, a bearer token, netrc.

Credentials belong to the upstream's own origin (scheme, host and port). To another host that a
narinfo names goes only what netrc has for that very machine, and nothing that was https goes out
over http. Redirects to another origin get nothing; that is the client's to know.

The files are read again when they change, so that a token can be renewed under a running daemon.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Generic, TypeVar

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix.netrc_text import Netrc, parse_netrc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tvixstore.pathinfo.nix.urls import Url
    from tvixstore.pools import Pool

Parsed = TypeVar("Parsed")


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class Credentials:
    """What to authorize requests with, for one upstream at `home`."""

    def __init__(
        self,
        name: str,
        home: Url,
        files: Pool,
        netrc_file: Path | None = None,
        token_file: Path | None = None,
    ) -> None:
        self._home = home
        self._files = files
        self._netrc = None if netrc_file is None else _WatchedFile(name, netrc_file, _read_netrc)
        self._token = None if token_file is None else TokenFile(name, token_file)

    async def authorization(self, url: Url) -> str | None:
        """The Authorization header for `url`, if there is to be one.

        Raises `Unavailable` for a file that cannot be read, naming it: to ask without what was
        configured would only get a refusal, or worse, an answer for strangers.
        """
        is_home = url.origin == self._home.origin
        login = self._home.login if url.login is None and is_home else url.login
        if login is not None:
            return basic(*login)
        if is_home and self._token is not None:
            return "Bearer " + await self._files.run(self._token.read)
        if self._netrc is None or (self._home.scheme, url.scheme) == ("https", "http"):
            return None
        netrc = await self._files.run(self._netrc.read)
        entry = netrc.machines.get(url.host)
        if entry is None and is_home:
            entry = netrc.default
        return None if entry is None else basic(entry.login, entry.password)


class _WatchedFile(Generic[Parsed]):
    """A small file, read again when it changed. `read` blocks."""

    def __init__(self, name: str, path: Path, parse: Callable[[Path], Parsed]) -> None:
        self._name = name
        self._path = path
        self._parse = parse
        self._known: tuple[tuple[int, int, int], Parsed] | None = None

    def read(self) -> Parsed:
        try:
            status = os.stat(self._path)
            version = status.st_mtime_ns, status.st_size, status.st_ino
            known = self._known
            if known is None or known[0] != version:
                known = self._known = version, self._parse(self._path)
            return known[1]
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from error
        except UnicodeError:
            # It holds what it could not decode.
            raise self._unreadable("it is not UTF-8") from None
        except ValueError as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, why: str) -> Unavailable:
        return Unavailable(f"{self._name}: credentials in {self._path} cannot be read: {why}")


class TokenFile:
    """A file with one token in it, for whoever is called `name`."""

    def __init__(self, name: str, path: Path) -> None:
        self._file = _WatchedFile(name, path, _read_token)

    def read(self) -> str:
        """The token of now. Blocks. Raises `Unavailable`, naming the file."""
        return self._file.read()


def _read_netrc(path: Path) -> Netrc:
    return parse_netrc(path.read_text("utf-8"))


def _read_token(path: Path) -> str:
    token = path.read_text("utf-8").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("it is not a single token")
    return token
