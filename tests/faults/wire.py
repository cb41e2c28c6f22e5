"""The little HTTP that an upstream needs which is to fail at any byte, and a look at the kernel."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_PIECE = 64 << 10
# A connection that asks for one, in /proc/net/tcp.
_SYN_SENT = "02"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    start: int
    condition: str | None


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    content_type: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


def parse(head: bytes) -> Request:
    method, target, _ = head.decode("latin-1").split(" ", 2)
    wanted = re.search(rb"\r\nrange: bytes=(\d+)-\r", head, re.I)
    condition = re.search(rb'\r\nif-range: ("[^"]*")', head, re.I)
    start = int(wanted[1]) if wanted else 0
    return Request(method, target, start, condition[1].decode() if condition else None)


async def send(
    writer: asyncio.StreamWriter,
    status: str,
    body: bytes,
    headers: dict[str, str],
    announced: int | None = None,
) -> None:
    length = len(body) if announced is None else announced
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    for begin in range(0, len(body), _PIECE):
        writer.write(body[begin : begin + _PIECE])
        await writer.drain()
    await writer.drain()


def is_knocked_at(port: int) -> bool:
    """Whether somebody waits for a connection to that port."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return any(row[2].endswith(f":{port:04X}") and row[3] == _SYN_SENT for row in rows[1:])
