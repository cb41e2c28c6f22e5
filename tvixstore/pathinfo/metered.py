"""Counts what a node of the composition is asked, how it answers, and how much it delivers; and
tells of it where a request is traced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

from tvixstore.metrics import NodeMeter
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy import tracing
from tvixstore.policy.hearsay import is_hearsay
from tvixstore.policy.tracing import Step, outcome_of
from tvixstore.streams import ByteStream

Answer = TypeVar("Answer")

Status = Callable[[str, BaseException | None], None]


@dataclass(eq=False)
class MeteredPathInfoService(PathInfoWrapper):
    """Reports each call of `inner` to `meter`, and its outcome (with its error) to `status`.

    What was answered from memory (`hearsay`) is counted, and no news for `status`.

    A stream that breaks later counts as a call `stream` of its own. `name` and `kind` are what the
    node goes by in a trace.
    """

    meter: NodeMeter = field(repr=False)
    status: Status | None = field(default=None, repr=False)
    # Not the loop's time: uvloop's has a resolution of 1 ms, and a warm answer takes microseconds.
    clock: Callable[[], float] = field(default=perf_counter, repr=False)
    name: str = field(default="", repr=False)
    kind: str = field(default="", repr=False)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        step = tracing.below(self.name, self.kind, "describe")
        return await self._observed("describe", self.inner.describe(path_hash, nar_sha256), step)

    async def get(self, path_hash: bytes) -> PathInfo | None:
        step = tracing.below(self.name, self.kind, "get")
        return await self._observed("get", self.inner.get(path_hash), step)

    async def put(self, info: PathInfo) -> PathInfo:
        step = tracing.below(self.name, self.kind, "put")
        return await self._observed("put", self.inner.put(info), step)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        opening = self.inner.open_nar(description, offset, length, into)
        step = tracing.below(self.name, self.kind, "open_nar")
        stream = await self._observed("open_nar", opening, step)
        return None if stream is None else _MeteredStream(stream, self, step)

    async def _observed(self, call: str, answer: Awaitable[Answer], step: Step | None) -> Answer:
        started = self.clock()
        # As `tracing.traced`, without a coroutine more for what is asked most.
        token = None if step is None else tracing.begin(step)
        try:
            result = await answer
        except BaseException as error:
            if step is not None:
                step.fail(error)
            self.note(call, outcome_of(error), self.clock() - started, error)
            raise
        finally:
            if token is not None:
                tracing.over(token)
        outcome = "absent" if result is None else "present"
        if step is not None:
            step.end(outcome)
        self.note(call, outcome, self.clock() - started)
        return result

    def note(
        self, call: str, outcome: str, seconds: float, error: BaseException | None = None
    ) -> None:
        self.meter.observe(call, outcome, seconds)
        if self.status is not None and not is_hearsay():
            self.status(outcome, error)


class _MeteredStream(ByteStream):
    def __init__(
        self, stream: ByteStream, service: MeteredPathInfoService, step: Step | None
    ) -> None:
        self._stream = stream
        self._service = service
        self._bytes = service.meter.bytes
        self._opened = service.clock()
        self._step = step

    async def __anext__(self) -> bytes:
        try:
            part = await self._stream.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:
            seconds = self._service.clock() - self._opened
            self._service.note("stream", outcome_of(error), seconds, error)
            if self._step is not None:
                self._step.note("stream.broke", str(error) or type(error).__name__, seconds)
            raise
        size = len(part)
        self._bytes.inc(size)
        if self._step is not None:
            self._step.bytes += size
        return part

    async def aclose(self) -> None:
        await self._stream.aclose()
