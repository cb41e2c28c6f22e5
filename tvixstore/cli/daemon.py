"""`tvix-store daemon`: builds the composition, opens the doors, and stops well when told to."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from tvixstore import __version__
from tvixstore.cli.app import INTERRUPTED
from tvixstore.compose import Config, lint, lower
from tvixstore.compose.composition import Composition
from tvixstore.compose.show import tree
from tvixstore.http import HttpFront, HttpServer, serve
from tvixstore.kv.state import VERSION
from tvixstore.log import Logger, configure

log = Logger("tvixstore.daemon")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> int:
    """Runs the daemon until a signal ends it, and returns its exit code.

    Raises `ConfigError`, one line, where it cannot start.
    """
    configure(config.daemon.log_level, config.daemon.log_format)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Daemon(config).run())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class _Daemon:
    """One run: the first signal asks it to drain, the second to stop at once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._asked = asyncio.Event()
        self._urged = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            async with await Composition.open(self._config) as composition:
                server = await self._open_door(composition)
                try:
                    await self._asked.wait()
                    await self._drain(server)
                finally:
                    await server.aclose()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        log.info("stopped")
        return INTERRUPTED if self._urged.is_set() else 0

    async def _open_door(self, composition: Composition) -> HttpServer:
        """Starts to serve, and says what, where and from what."""
        daemon = self._config.daemon
        front = HttpFront(
            composition.path_infos,
            composition.content,
            composition.metrics,
            priority=daemon.priority,
            access_log=daemon.access_log,
            status=composition.upstream_statuses,
        )
        server = await serve(front, str(daemon.http), daemon.drain_timeout)
        log.info("starting", version=__version__, compose=self._config.name)
        for address in server.addresses:
            url = f"http+{address}" if address.startswith("unix:") else f"http://{address}"
            log.info("listening", http=url)
        if daemon.grpc.kind != "off":
            log.debug("grpc.not_served", address=daemon.grpc, reason="not in this version")
        if composition.state is not None:
            log.info("state", path=composition.state.path, format=VERSION)
        for warning in lint(self._config):
            log.warning("compose.lint", file=self._config.name, reason=warning)
        for line in tree(lower(self._config), "path_infos"):
            log.info("tree", text=line)
        log.info("ready")
        return server

    async def _drain(self, server: HttpServer) -> None:
        """Lets what runs come to its end, unless somebody cannot wait."""
        log.info("draining", seconds=self._config.daemon.drain_timeout)
        draining = asyncio.create_task(server.drain())
        urged = asyncio.create_task(self._urged.wait())
        try:
            await asyncio.wait([draining, urged], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (draining, urged):
                task.cancel()
            await asyncio.wait([draining, urged])
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
