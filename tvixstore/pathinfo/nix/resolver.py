"""Name resolution in the DNS pool: a lookup that hangs for a minute stops nothing else."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

if TYPE_CHECKING:
    from tvixstore.pools import Pool


class PoolResolver(AbstractResolver):
    """getaddrinfo, in threads of ours. A lookup that nobody waits for any more is left behind."""

    def __init__(self, dns: Pool) -> None:
        self._dns = dns

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return await self._dns.abandon(_look_up, host, port, family)

    async def close(self) -> None:
        """The pool is its owner's."""


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    results = []
    for kind, _, protocol, _, address in found:
        # A link-local IPv6 address is nothing without its zone, which only this keeps.
        numeric, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        results.append(
            ResolveResult(
                hostname=host,
                host=numeric,
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
        )
    return results
