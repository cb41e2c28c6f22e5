"""Connections to where a front door says that it listens."""

from __future__ import annotations

import asyncio


async def dial(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To an ADDR: `host:port`, `[v6]:port` or `unix:/path`."""
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, port = address.rsplit(":", 1)
    return await asyncio.open_connection(host.strip("[]"), int(port))
