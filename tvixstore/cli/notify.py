"""What the daemon tells whoever supervises it: sd_notify, as systemd has it.

A datagram of `NAME=value` lines to the socket that NOTIFY_SOCKET names, a path or `@` and an
abstract name. Where it names none, nobody is told anything.

The watchdog's pings come from the event loop, twice in each period, and only while the daemon is
sound. A loop that is stuck sends none; it is then killed and started again, which is what the
watchdog is for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self

from tvixstore.errors import ConfigError
from tvixstore.log import Logger
from tvixstore.policy.outage import Outage
from tvixstore.policy.tasks import end

log = Logger("tvixstore.notify")

# What closing takes at most, once everything is drained: writing what waits, and the state.
_CLOSING = 20.0


class Notifier:
    """Tells of one daemon's life; to be left when it is over."""

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        """`watchdog`: after so many seconds without a ping the daemon is killed."""
        if address is not None and not address.startswith(("/", "@")):
            raise ConfigError(f"NOTIFY_SOCKET is {address!r}, neither a path nor an @name")
        self._address = address.replace("@", "\0", 1) if address else None
        self._period = watchdog
        self._socket: socket.socket | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._outage = Outage(log, "notify.unheard", "notify.heard")

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Notifier:
        """As `environ` says, which does not say so any more then: no child is the daemon.

        Raises `ConfigError`, one line.
        """
        address, period, pid = (
            environ.pop(name, None) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        if period is None or pid not in (None, str(os.getpid())):
            return cls(address)
        if not (period.isascii() and period.isdecimal() and len(period) < 20 and int(period)):
            raise ConfigError(f"WATCHDOG_USEC is {period!r}, not a number of microseconds")
        return cls(address, int(period) / 1e6)

    def ready(self, status: str, trouble: Callable[[], str | None]) -> None:
        """The daemon serves. From now on it is watched: `trouble` says why it is not sound."""
        self._tell(f"READY=1\nSTATUS={status}")
        if self._socket is not None and self._period is not None:
            self._pinging = asyncio.create_task(
                self._ping(self._period / 2, status, trouble), name="watchdog"
            )

    def reloading(self) -> None:
        """The daemon reads its compose file again; `reloaded` follows in any case."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self, status: str) -> None:
        """It has, and serves on, whatever came of it."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self, seconds: float) -> None:
        """The daemon ends; requests that run have so many `seconds` to come to their end."""
        extended = round((seconds + _CLOSING) * 1e6)
        status = f"STATUS=draining: requests that run have {seconds:g} s"
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={extended}\n{status}")

    async def __aenter__(self) -> Self:
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pinging is not None:
            await end([self._pinging])
        if self._socket is not None:
            self._socket.close()

    async def _ping(self, interval: float, status: str, trouble: Callable[[], str | None]) -> None:
        withheld: str | None = None
        while True:
            if (why := trouble()) is None:
                self._tell("WATCHDOG=1" if withheld is None else f"WATCHDOG=1\nSTATUS={status}")
            elif why != withheld:
                log.error("watchdog.withheld", reason=why)
                self._tell(f"STATUS=in trouble: {why}")
            withheld = why
            await asyncio.sleep(interval)

    def _tell(self, message: str) -> None:
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            self._outage.failed(error)
        else:
            self._outage.over()
