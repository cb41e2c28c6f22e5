"""A client that speaks HTTP/2 by hand, and so can do what no gRPC library lets one do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpclib.const import Status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamReset,
    TrailersReceived,
)

from tests.support.dialling import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from h2.events import Event


def framed(data: bytes) -> bytes:
    """One message, its prefix in front."""
    return b"\0" + len(data).to_bytes(4, "big") + data


@dataclass
class RawCall:
    """What came of one stream."""

    data: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False

    @property
    def status(self) -> Status | None:
        status = self.headers.get("grpc-status")
        return None if status is None else Status(int(status))

    @property
    def messages(self) -> list[bytes]:
        found, rest = [], bytes(self.data)
        while rest:
            end = 5 + int.from_bytes(rest[1:5], "big")
            found.append(rest[5:end])
            rest = rest[end:]
        return found


class RawClient:
    """One connection. What comes is taken in while `until` waits."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True, header_encoding="utf-8", validate_outbound_headers=False
            )
        )
        self.calls: dict[int, RawCall] = {}
        self.goodbye = False
        self.settled = False
        self.pongs = 0
        # Whether what comes is acknowledged, so that more may come.
        self.reads = True

    def begin(self, path: str, **headers: str) -> int:
        """Opens a stream for a call, and returns its number."""
        number = self.h2.get_next_available_stream_id()
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        self.h2.send_headers(number, list(fields.items()))
        self.calls[number] = RawCall()
        self.flush()
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """As much as the windows must allow: they are not waited for."""
        size = self.h2.max_outbound_frame_size
        parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        for part in parts[:-1]:
            self.h2.send_data(number, part)
        self.h2.send_data(number, parts[-1], end_stream=end)
        self.flush()

    async def send_all(self, number: int, data: bytes) -> None:
        """As `send`, but waits for the windows; then the request has ended."""

        def room() -> bool:
            return self.h2.local_flow_control_window(number) >= 30_000

        for start in range(0, len(data), 30_000):
            await self.until(room)
            self.send(number, data[start : start + 30_000])
        self.send(number, b"", end=True)

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def until(self, condition: Callable[[], object]) -> None:
        """Takes in what comes until `condition` holds; `EOFError` if the server hangs up before."""
        async with asyncio.timeout(20):
            while not condition():
                data = await self._reader.read(1 << 16)
                if not data:
                    raise EOFError("the server hung up")
                for event in self.h2.receive_data(data):
                    self._take(event)
                self.flush()

    async def ended(self, number: int) -> RawCall:
        """The call, once its status came or it was reset."""
        call = self.calls[number]
        await self.until(lambda: call.status is not None or call.reset)
        return call

    async def call(self, path: str, *requests: bytes, **headers: str) -> RawCall:
        number = self.begin(path, **headers)
        self.send(number, b"".join(map(framed, requests)), end=True)
        return await self.ended(number)

    async def heard(self) -> None:
        """Returns when the server has taken in all that was written."""
        pongs = self.pongs
        self.h2.ping(b"received")
        self.flush()
        await self.until(lambda: self.pongs > pongs)

    async def hung_up(self) -> None:
        with suppress(EOFError, ConnectionError):
            await self.until(lambda: False)

    def _take(self, event: Event) -> None:
        match event:
            case DataReceived():
                self.calls[event.stream_id].data += event.data
                if self.reads:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case ResponseReceived() | TrailersReceived():
                self.calls[event.stream_id].headers |= dict(event.headers)  # type: ignore[arg-type]
            case StreamReset():
                self.calls[event.stream_id].reset = True
            case ConnectionTerminated():
                self.goodbye = True
            case PingAckReceived():
                self.pongs += 1
            case SettingsAcknowledged():
                self.settled = True
            case _:
                pass


@asynccontextmanager
async def raw_client(address: str) -> AsyncIterator[RawClient]:
    reader, writer = await dial(address)
    client = RawClient(reader, writer)
    client.h2.initiate_connection()
    client.flush()
    try:
        await client.until(lambda: client.settled)
        yield client
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
