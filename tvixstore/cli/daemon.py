"""`tvix-store daemon`: builds the composition, opens the doors, and stops well when told to."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from prometheus_client import disable_created_metrics

from tvixstore import __version__
from tvixstore.cli.activation import Inherited, inherited_sockets
from tvixstore.cli.app import INTERRUPTED
from tvixstore.cli.doors import Doors, grpc_front, http_front
from tvixstore.cli.guard import Guard
from tvixstore.cli.leaving import loop_factory
from tvixstore.cli.notify import Notifier
from tvixstore.cli.reload import Reloader, Watched
from tvixstore.compose import Config, Daemon, lint, lower
from tvixstore.compose.composition import Composition
from tvixstore.compose.show import tree
from tvixstore.http import HttpServer
from tvixstore.http import serve as serve_http
from tvixstore.kv.state import VERSION
from tvixstore.log import Logger, configure
from tvixstore.policy.tasks import end
from tvixstore.rpc.server import GrpcServer
from tvixstore.rpc.server import serve as serve_grpc

log = Logger("tvixstore.daemon")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: Config, path: Path | None = None, watched: Watched | None = None) -> int:
    """Runs the daemon until a signal ends it, and returns its exit code.

    `path` is where the config came from, to be read again on SIGHUP, and, where it is `watched`,
    whenever it has changed; `None` is the packaged default.

    Raises `ConfigError`, one line, where it cannot start.
    """
    configure(config.daemon.log_level, config.daemon.log_format)
    _relax_collector()
    # When a counter was first counted is of no use to anybody, and doubles `/metrics`.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    notifier = Notifier.of(os.environ)
    with inherited_sockets(config.daemon, os.environ) as inherited:
        placed = replace(config, daemon=inherited.placed(config.daemon))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            daemon = _Daemon(placed, inherited, notifier)
            return runner.run(daemon.run(path, config.daemon, watched))


def _relax_collector() -> None:
    """Leaves the cycle collector less to do: it took a sixth of the time of a cold path.

    What is loaded by now stays for good, and little of what requests make is cyclic: references
    free almost all of it. So the collector looks at less, and less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class _Daemon:
    """One run: the first signal asks it to drain, the second to stop at once."""

    def __init__(self, config: Config, inherited: Inherited, notifier: Notifier) -> None:
        self._config = config
        self._inherited = inherited
        self._notifier = notifier
        self._asked = asyncio.Event()
        self._to_reload = asyncio.Event()
        self._urged = asyncio.Event()

    async def run(self, path: Path | None, written: Daemon, watched: Watched | None) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        # From the first moment on, and to the last: it would end the process otherwise.
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        try:
            async with self._notifier, await Composition.open(self._config) as composition:
                async with AsyncExitStack() as doors:
                    servers = await self._open_doors(composition, doors)
                    where = servers.where
                    self._notifier.ready(where, composition.trouble)
                    reloader = Reloader(
                        path, written, composition, self._notifier, where, servers.changed_over
                    )
                    doors.push_async_callback(reloader.aclose)
                    reloader.start(self._to_reload, watched)
                    await self._asked.wait()
                    # What is being read again now would come too late.
                    await reloader.aclose()
                    drain_timeout = composition.config.daemon.drain_timeout
                    self._notifier.stopping(drain_timeout)
                    await self._drain(servers.both, drain_timeout)
        finally:
            for number in (*_SIGNALS, signal.SIGHUP):
                loop.remove_signal_handler(number)
        log.info("stopped")
        return INTERRUPTED if self._urged.is_set() else 0

    async def _open_doors(self, composition: Composition, doors: AsyncExitStack) -> Doors:
        """Starts to serve, and says what, where and from what."""
        daemon = self._config.daemon
        writes = daemon.takes_writes()
        guard = await Guard.open(daemon, composition.pools)
        http = await serve_http(
            http_front(composition, daemon, guard.access),
            str(daemon.http),
            daemon.drain_timeout,
            guard.http_tls,
            inherited=self._inherited.http,
        )
        doors.push_async_callback(http.aclose)
        grpc = await serve_grpc(
            grpc_front(composition, daemon, guard.access),
            str(daemon.grpc),
            daemon.drain_timeout,
            guard.grpc_tls,
            inherited=self._inherited.grpc,
        )
        doors.push_async_callback(grpc.aclose)
        guard.watch(http, grpc)
        doors.push_async_callback(guard.aclose)
        log.info("starting", version=__version__, compose=self._config.name)
        for address in http.addresses:
            log.info(
                "listening",
                http=_url("http", address, daemon),
                inherited=bool(self._inherited.http) or None,
                writes=writes,
                why=_why(daemon),
            )
        for address in grpc.addresses:
            log.info(
                "listening",
                grpc=_url("grpc", address, daemon),
                inherited=bool(self._inherited.grpc) or None,
                writes=writes,
                why=_why(daemon),
            )
        if composition.state is not None:
            log.info("state", path=composition.state.path, format=VERSION)
        for warning in lint(self._config):
            log.warning("compose.lint", file=self._config.name, reason=warning)
        for line in tree(lower(self._config), "path_infos"):
            log.info("tree", text=line)
        log.info("ready")
        return Doors(composition, guard, http, grpc)

    async def _drain(self, servers: list[HttpServer | GrpcServer], seconds: float) -> None:
        """Lets what runs come to its end, unless somebody cannot wait."""
        log.info("draining", seconds=seconds)
        draining = asyncio.create_task(_drain_all(servers))
        urged = asyncio.create_task(self._urged.wait())
        try:
            await asyncio.wait([draining, urged], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end([draining, urged])
        if not draining.cancelled():
            draining.result()

    def _signalled(self, number: signal.Signals) -> None:
        log.info("signal", name=number.name)
        if not self._asked.is_set():
            self._asked.set()
            return
        self._urged.set()
        # Whatever hangs now, a third one ends it.
        for handled in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(handled)
            signal.signal(handled, signal.SIG_DFL)

    def _hung_up(self) -> None:
        # While it starts, for afterwards; while it drains, for nothing.
        log.info("signal", name=signal.SIGHUP.name)
        self._to_reload.set()


async def _drain_all(servers: list[HttpServer | GrpcServer]) -> None:
    await asyncio.gather(*[server.drain() for server in servers])


def _why(daemon: Daemon) -> str:
    if daemon.writes != "auto":
        return "the compose file says so"
    if daemon.tokens_file is not None:
        return "of whoever has a token for it"
    if daemon.is_local():
        return "only this machine can connect"
    return "other machines can connect"


def _url(scheme: str, address: str, daemon: Daemon) -> str:
    """`address` as clients write it."""
    if address.startswith("unix:"):
        return f"{scheme}+{address}" if scheme == "http" else f"grpc+unix://{address[5:]}"
    transport = "http" if daemon.tls_cert is None else "https"
    return f"{transport}://{address}" if scheme == "http" else f"grpc+{transport}://{address}"
