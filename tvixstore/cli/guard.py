"""Who gets in at the daemon's doors: its tokens and certificates, as long as it runs."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tvixstore.access import (
    NONE,
    Access,
    Certificate,
    Reloaded,
    Rights,
    Tokens,
    Watch,
    parse_tokens,
    read_certificate,
)
from tvixstore.access.tokens import LONGEST
from tvixstore.compose import Daemon
from tvixstore.errors import ConfigError
from tvixstore.http import HttpServer
from tvixstore.log import Logger
from tvixstore.policy.tasks import end
from tvixstore.pools import Pools
from tvixstore.rpc.server import GrpcServer

if TYPE_CHECKING:
    import ssl

log = Logger("tvixstore.daemon")

# A certificate that ends so soon is not being renewed.
_SOON: Final = timedelta(days=14)
_DAILY: Final = 86400.0


class Guard:
    """What `[daemon]` says of access, with the files it names. Made by `open`; then `watch`."""

    def __init__(self, daemon: Daemon, pools: Pools) -> None:
        self.access = Access(daemon.rights_of_strangers(), withheld=_withheld(daemon))
        self.http_tls: ssl.SSLContext | None = None
        self.grpc_tls: ssl.SSLContext | None = None
        self._pools = pools
        self._expires: datetime | None = None
        self._doors: tuple[HttpServer, GrpcServer] | None = None
        self._reloaded: list[Reloaded[Any]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def change(self, daemon: Daemon) -> None:
        """From now on what `daemon` says of rights counts; the files are the same."""
        self.access.change(daemon.rights_of_strangers(), _withheld(daemon))

    @classmethod
    async def open(cls, daemon: Daemon, pools: Pools) -> Guard:
        """Reads the files. Raises `ConfigError` for those that cannot be used."""
        guard = cls(daemon, pools)
        if (file := daemon.tokens_file) is not None:
            tokens = Reloaded("tokens_file", [file], lambda: _read_tokens(file), guard._use_tokens)
            await guard._use_tokens(await guard._first(tokens))
        if daemon.tls_cert is not None and daemon.tls_key is not None:
            cert, key, authority = daemon.tls_cert, daemon.tls_key, daemon.client_ca
            certificate = Reloaded(
                "tls_cert",
                [path for path in (cert, key, authority) if path is not None],
                lambda: read_certificate(cert, key, authority),
                guard._use_certificate,
            )
            await guard._use_certificate(await guard._first(certificate))
        await pools.files.run(guard.warn_of_exposed, daemon)
        return guard

    def warn_of_exposed(self, daemon: Daemon) -> None:
        """Says which of the secret files other users of this machine can read."""
        for key in ("tokens_file", "tls_key"):
            path: Path | None = getattr(daemon, key)
            if path is not None and path.stat().st_mode & stat.S_IROTH:
                log.warning("access.exposed", key=key, path=path)

    def watch(self, http: HttpServer, grpc: GrpcServer) -> None:
        """Has files that change take effect, at those doors."""
        self._doors = http, grpc
        if self._reloaded:
            watch = Watch(self._pools.files, self._reloaded)
            self._tasks.append(asyncio.create_task(watch.run(), name="watch access files"))
        if self._expires is not None:
            self._tasks.append(asyncio.create_task(self._remind(), name="watch certificate"))

    async def aclose(self) -> None:
        await end(self._tasks)

    async def _first(self, reloaded: Reloaded[Any]) -> Any:
        self._reloaded.append(reloaded)
        return await self._pools.files.run(reloaded.first)

    async def _use_tokens(self, tokens: Tokens) -> None:
        self.access.renew(tokens)

    async def _use_certificate(self, certificate: Certificate) -> None:
        self._expires = certificate.expires
        self.http_tls, self.grpc_tls = certificate.http, certificate.grpc
        if self._doors is not None:
            http, grpc = self._doors
            await http.renew(certificate.http)
            await grpc.renew(certificate.grpc)
        self._warn()

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(_DAILY)
            self._warn()

    def _warn(self) -> None:
        """Says that the certificate is about to end, or did: clients will not take it then."""
        if self._expires is None or self._expires - datetime.now(UTC) > _SOON:
            return
        log.warning("tls.expires", at=self._expires.isoformat(timespec="seconds"))


def _withheld(daemon: Daemon) -> Rights:
    return NONE if daemon.takes_writes() else frozenset({"write"})


def _read_tokens(path: Path) -> Tokens:
    name = f"tokens_file: {path}"
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"{name} cannot be read: {reason}; name a file that this user can read"
        ) from None
    if len(data) > LONGEST:
        raise ConfigError(f"{name} is longer than {LONGEST} bytes: is it the right file?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # Without the error itself, which has the bytes in it.
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}: line {line}: is not UTF-8") from None
    return parse_tokens(text, name)
