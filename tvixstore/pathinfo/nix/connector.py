"""aiohttp's connector, but for connections that were spoilt before anybody asked over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class Connector(aiohttp.TCPConnector):
    """Hands out no connection over which something came that nobody had asked for.

    aiohttp would take it for the answer to the next question: for an absence, perhaps.
    """

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        """Raises for a new one that is spoilt already: the next would be no better."""
        protocol = await super()._create_connection(req, traces, timeout)
        if not protocol.should_close:
            return protocol
        connected = protocol.is_connected()
        protocol.close()
        if connected:
            raise HttpProcessingError(message="it came before there was a question")
        raise aiohttp.ServerDisconnectedError
