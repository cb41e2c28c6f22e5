"""Counts what a node of the composition is asked, how it answers, and how much it delivers; and
tells of it where a request is traced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, TypeVar

from tvixstore.metrics import NodeMeter
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.wrapper import PathInfoWrapper
from tvixstore.policy import tracing
from tvixstore.policy.hearsay import is_hearsay
from tvixstore.policy.tracing import Label, Step, outcome_of
from tvixstore.streams import ByteStream

Answer = TypeVar("Answer")

Status = Callable[[str, BaseException | None], None]

# Nodes that say nothing while they describe a path: those that ask nobody else, and those that are
# on top of all others, one call at a time. What is asked most goes through them, and is told of
# when it is over, in a third of the time.
_ALONE: Final = frozenset({"local", "memory", "lru"})
_ON_TOP: Final = frozenset({"cache", "combined", "countersigning", "signature-required"})
_NO_LABEL: Final = Label("", "")


@dataclass(eq=False)
class MeteredPathInfoService(PathInfoWrapper):
    """Reports each call of `inner` to `meter`, and its outcome (with its error) to `status`.

    What was answered from memory (`hearsay`) is counted, and no news for `status`.

    A stream that breaks later counts as a call `stream` of its own. `label` is what the node goes
    by in a trace; on top are those that only front doors call.
    """

    meter: NodeMeter = field(repr=False)
    status: Status | None = field(default=None, repr=False)
    # Not the loop's time: uvloop's has a resolution of 1 ms, and a warm answer takes microseconds.
    clock: Callable[[], float] = field(default=perf_counter, repr=False)
    label: Label = field(default=_NO_LABEL, repr=False)
    on_top: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._alone = self.label.kind in _ALONE
        self._lightly = self._alone or (self.on_top and self.label.kind in _ON_TOP)

    async def describe(
        self, path_hash: bytes, nar_sha256: bytes | None = None
    ) -> Description | None:
        above = tracing.here()
        if above is not None and not self._lightly:
            asking = self.inner.describe(path_hash, nar_sha256)
            return await self._observed("describe", asking, above.below(self.label, "describe"))
        started = self.clock()
        try:
            result = await self.inner.describe(path_hash, nar_sha256)
        except BaseException as error:
            ended = self.clock()
            if above is not None:
                self._tell(above, (started, ended), outcome_of(error), error)
            self.note("describe", outcome_of(error), ended - started, error)
            raise
        ended = self.clock()
        outcome = "absent" if result is None else "present"
        if above is not None:
            if result is not None and above.takes_hit:
                above.hit = above.hit or self.label
            else:
                self._tell(above, (started, ended), outcome)
        self.note("describe", outcome, ended - started)
        return result

    async def get(self, path_hash: bytes) -> PathInfo | None:
        step = tracing.below(self.label, "get")
        return await self._observed("get", self.inner.get(path_hash), step)

    async def put(self, info: PathInfo) -> PathInfo:
        step = tracing.below(self.label, "put")
        return await self._observed("put", self.inner.put(info), step)

    async def open_nar(
        self,
        description: Description,
        offset: int = 0,
        length: int | None = None,
        into: PathInfoService | None = None,
    ) -> ByteStream | None:
        opening = self.inner.open_nar(description, offset, length, into)
        step = tracing.below(self.label, "open_nar")
        stream = await self._observed("open_nar", opening, step)
        return None if stream is None else _MeteredStream(stream, self, step)

    async def _observed(self, call: str, answer: Awaitable[Answer], step: Step | None) -> Answer:
        started = self.clock()
        # As `tracing.traced`, without a coroutine more.
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

    def _tell(
        self,
        above: Step,
        times: tuple[float, float],
        outcome: str,
        error: BaseException | None = None,
    ) -> None:
        """Tells of a description that is over."""
        step = above.ended_below(self.label, "describe", times, outcome, gathers=not self._alone)
        if error is not None and step is not None:
            step.fail(error)

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
