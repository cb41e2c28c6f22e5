"""Path-info services that behave as a test says: slow, dead, lying, breaking off."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from tests.support.virtual_clock import now
from tvixstore.castore import FileNode
from tvixstore.castore.digest import Digest
from tvixstore.errors import ReadOnly, StoreError, Unavailable, Unsupported
from tvixstore.nix import StorePath
from tvixstore.pathinfo import Description, PathInfo, PathInfoService
from tvixstore.streams import ByteStream

PATH = StorePath(bytes(range(20)), "hello-2.12")
KEY = PATH.hash
STALL = 20.0


def nar_of(seed: str = "hello") -> bytes:
    """A hundred bytes to serve as a NAR; nobody here looks into it."""
    return (seed.encode() * 100)[:100]


def info_of(seed: str = "hello", path: StorePath = PATH) -> PathInfo:
    """The path with the NAR `nar_of(seed)`."""
    nar = nar_of(seed)
    node = FileNode(Digest.of(nar), len(nar))
    nar_sha256 = hashlib.sha256(nar).digest()
    return PathInfo(store_path=path, nar_sha256=nar_sha256, nar_size=len(nar), node=node)


@dataclass(eq=False)
class Scripted(PathInfoService):
    """Says `says` (an error is raised) after `after` seconds; never, if that is `None`.

    Its NAR is the one of `seed`, in pieces of ten bytes, and breaks off with `breaks_with` at
    `breaks_at`. All of it may be changed, for the calls to come. `calls` are (name, time).
    """

    says: PathInfo | Exception | None = field(default_factory=info_of)
    after: float | None = 0.0
    seed: str = "hello"
    breaks_at: int | None = None
    breaks_with: Exception = field(default_factory=lambda: Unavailable("connection reset"))
    calls: list[tuple[str, float]] = field(default_factory=list)
    open_streams: int = 0
    into: PathInfoService | None = None
    puts: list[PathInfo] | Exception | None = None

    def asked(self, call: str) -> int:
        return sum(name == call for name, _ in self.calls)

    async def _answer(self, call: str) -> PathInfo | None:
        self.calls.append((call, now()))
        says = self.says
        if self.after is None and call == "open_nar":
            # Whoever reads the network gives up on a download by himself.
            await asyncio.sleep(STALL)
            raise Unavailable("no byte came")
        if self.after is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(self.after)
        if isinstance(says, Exception):
            raise says
        return says

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        info = await self._answer("describe")
        return info if info is None or nar_sha256 in (None, info.nar_sha256) else None

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return await self._answer("get")

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        info = await self._answer("open_nar")
        self.into = into
        if info is None or not info.same_nar(description):
            return None
        return _ScriptedStream(self, offset, length)

    async def put(self, info: PathInfo) -> PathInfo:
        self.calls.append(("put", now()))
        if self.puts is None:
            raise ReadOnly("scripted")
        if isinstance(self.puts, Exception):
            raise self.puts
        self.puts.append(info)
        self.says = info
        return info

    def list(self) -> AsyncGenerator[PathInfo, None]:
        raise Unsupported("scripted")


class _ScriptedStream(ByteStream):
    def __init__(self, service: Scripted, offset: int, length: int | None) -> None:
        nar = nar_of(service.seed)
        self._nar = nar if length is None else nar[: offset + length]
        self._position = offset
        self._service = service
        self._open = True
        service.open_streams += 1

    async def __anext__(self) -> bytes:
        breaks_at = self._service.breaks_at
        if breaks_at is not None and self._position >= breaks_at:
            raise self._service.breaks_with
        part = self._nar[self._position : self._position + 10]
        self._position += len(part)
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._service.open_streams -= 1


async def read(stream: ByteStream | None) -> bytes:
    assert stream is not None
    return await stream.read_all()


async def read_until_it_breaks(stream: ByteStream | None) -> bytes:
    """What came before the stream broke; fails if it did not."""
    assert stream is not None
    came = b""
    async with stream:
        try:
            async for part in stream:
                came += part
        except (StoreError, OSError):
            return came
    raise AssertionError("the stream did not break")
