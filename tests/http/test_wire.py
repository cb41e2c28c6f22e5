"""How answers are cut into writes: with TCP_NODELAY each of them is a packet."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.http.support import (
    DescribedPaths,
    ScriptedStream,
    Store,
    StoredPath,
    description_of,
    front_of,
)
from tvixstore.http.connections import Connections
from tvixstore.http.dispatch import Dispatcher
from tvixstore.http.front import HttpFront


class RecordingTransport(asyncio.Transport):
    """Takes everything at once, and remembers in which pieces it came."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = asyncio.Event()

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def writes_for(front: HttpFront, target: str, *, times: int = 1) -> list[bytes]:
    """Asks so often on one connection, which the last request closes."""
    connections = Connections(Dispatcher(front))
    protocol, transport = connections(), RecordingTransport()
    protocol.connection_made(transport)
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\n"
    requests = [*[head] * (times - 1), f"{head}Connection: close\r\n"]
    protocol.data_received("".join(f"{request}\r\n" for request in requests).encode())
    await transport.closed.wait()
    protocol.connection_lost(None)
    await connections.close()
    return transport.writes


def parsed(response: bytes) -> tuple[bytes, set[bytes], bytes]:
    """Status line, headers and body, without when it was and what becomes of the connection."""
    head, _, body = response.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert any(line.startswith(b"Date: ") and line.endswith(b" GMT") for line in headers)
    told = {line for line in headers if not line.startswith((b"Date: ", b"Connection: "))}
    return status, told, body


def nar_in(path: StoredPath, *sizes: int) -> ScriptedStream:
    """The NAR cut into pieces of those sizes, the rest being the last piece."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(path.nar[at : at + size])
        at += size
    return ScriptedStream(*pieces, path.nar[at:])


async def test_a_narinfo_is_one_write() -> None:
    store = await Store.filled()
    front = front_of(store.path_infos, store.content)
    (write,) = await writes_for(front, f"/{store.path.digits}.narinfo")
    assert write.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"StorePath: " in write


async def test_a_narinfo_is_the_same_where_the_connection_stays_open() -> None:
    store = await Store.filled()
    front = front_of(store.path_infos, store.content)
    staying, closing = await writes_for(front, f"/{store.path.digits}.narinfo", times=2)
    assert parsed(staying) == parsed(closing)


async def test_headers_go_out_with_the_first_bytes_of_a_nar() -> None:
    store = await Store.filled()
    stream = nar_in(store.path, 1000)
    front = front_of(DescribedPaths(description_of(store.path), stream))
    first, *_ = await writes_for(front, store.path.by_hash)
    head, _, body = first.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == store.path.nar[:1000]


async def test_small_pieces_are_gathered() -> None:
    store = await Store.filled()
    stream = nar_in(store.path, *[100] * 3000)
    front = front_of(DescribedPaths(description_of(store.path), stream))
    writes = await writes_for(front, store.path.by_hash)
    assert len(writes) < 30
    assert b"".join(writes).endswith(b"\r\n\r\n" + store.path.nar)


async def test_large_pieces_go_out_as_they_are() -> None:
    store = await Store.filled()
    stream = nar_in(store.path, 140_000, 140_000)
    front = front_of(DescribedPaths(description_of(store.path), stream))
    _, second, third = await writes_for(front, store.path.by_hash)
    assert second == store.path.nar[140_000:280_000]
    assert third == store.path.nar[280_000:]
