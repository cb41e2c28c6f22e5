"""Counts what a node of the composition is asked, how it answers, and how much it delivers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

from tvixstore.metrics import NodeMeter
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy.hearsay import is_hearsay
from tvixstore.policy.observe import outcome_of
from tvixstore.streams import ByteStream

Answer = TypeVar("Answer")

Status = Callable[[str, BaseException | None], None]


@dataclass(eq=False)
class MeteredPathInfoService(PathInfoWrapper):
    """Reports each call of `inner` to `meter`, and its outcome (with its error) to `status`.

    What was answered from memory (`hearsay`) is counted, and no news for `status`.

    A stream that breaks later counts as a call `stream` of its own.
    """

    meter: NodeMeter = field(repr=False)
    status: Status | None = field(default=None, repr=False)
    # Not the loop's time: uvloop's has a resolution of 1 ms, and a warm answer takes microseconds.
    clock: Callable[[], float] = field(default=perf_counter, repr=False)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        return await self._observed("describe", self.inner.describe(path_hash, nar_sha256))

    async def get(self, path_hash: bytes) -> PathInfo | None:
        return await self._observed("get", self.inner.get(path_hash))

    async def put(self, info: PathInfo) -> PathInfo:
        return await self._observed("put", self.inner.put(info))

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        stream = await self._observed(
            "open_nar", self.inner.open_nar(description, offset, length, into)
        )
        return None if stream is None else _MeteredStream(stream, self)

    async def _observed(self, call: str, answer: Awaitable[Answer]) -> Answer:
        started = self.clock()
        try:
            result = await answer
        except BaseException as error:
            self.note(call, outcome_of(error), self.clock() - started, error)
            raise
        self.note(call, "absent" if result is None else "present", self.clock() - started)
        return result

    def note(
        self, call: str, outcome: str, seconds: float, error: BaseException | None = None
    ) -> None:
        self.meter.observe(call, outcome, seconds)
        if self.status is not None and not is_hearsay():
            self.status(outcome, error)


class _MeteredStream(ByteStream):
    def __init__(self, stream: ByteStream, service: MeteredPathInfoService) -> None:
        self._stream = stream
        self._service = service
        self._bytes = service.meter.bytes
        self._opened = service.clock()

    async def __anext__(self) -> bytes:
        try:
            part = await self._stream.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:
            seconds = self._service.clock() - self._opened
            self._service.note("stream", outcome_of(error), seconds, error)
            raise
        self._bytes.inc(len(part))
        return part

    async def aclose(self) -> None:
        await self._stream.aclose()
