"""Calls in, answers out: each in a task of its own, ended with whatever it still does.

grpclib cancels the task of a call whose client left, or whose deadline passed, in a way that breaks
every later cancel scope in it. So the work has a task that grpclib never sees: its own is only
waiting, and ends ours in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tvixstore.access import Right
from tvixstore.errors import StoreError
from tvixstore.log import Logger
from tvixstore.metrics import FrontMeter
from tvixstore.policy.deadline import bounded
from tvixstore.policy.seldom import Seldom
from tvixstore.policy.tasks import end
from tvixstore.policy.uses import Uses
from tvixstore.rpc.methods import Method
from tvixstore.rpc.server.call import Call
from tvixstore.rpc.server.front import GrpcFront
from tvixstore.rpc.server.refusals import OUTCOMES, Refusal, refusal_of, refusal_to
from tvixstore.rpc.server.stalls import RunningCalls

if TYPE_CHECKING:
    from grpclib.server import Stream

_log = Logger("tvixstore.grpc")

Serve = Callable[[Call[Any, Any]], Awaitable[None]]


@dataclass(eq=False, slots=True)
class Row:
    """One RPC as it is served here.

    Connections have it for as long as they are open: what serves it may become another one.
    """

    method: Method[Any, Any]
    serve: Serve
    # What it takes to be allowed to; `None` is for everybody.
    right: Right | None
    # Whether what is put is held in memory until it is whole.
    holds: bool = False
    # Whether its replies may wait for each other.
    gathers: bool = False
    # Whether it is answered while others are refused because the server ends.
    always: bool = False
    # Counts the calls that the services have to outlast; `None` where it needs none of them.
    uses: Uses | None = None

    @property
    def route(self) -> str:
        """Its name for metrics and logs, which is the same in all packages."""
        return f"{self.method.service}/{self.method.name}"


async def _serve(row: Row, call: Call[Any, Any]) -> None:
    """To its end it is of the services that there are now."""
    serve, uses = row.serve, row.uses
    if uses is None:
        return await serve(call)
    uses.begin()
    try:
        await serve(call)
    finally:
        uses.end()


def _shutting_down() -> Refusal:
    return Refusal(Status.UNAVAILABLE, "the server is shutting down")


class Dispatcher:
    """Serves the calls of one server."""

    def __init__(self, front: GrpcFront) -> None:
        self.running = RunningCalls(front.limits.stall)
        self.draining = asyncio.Event()
        # Those that the front's services serve.
        self.rows: list[Row] = []
        # What gives those of another front, in the same order.
        self.rows_of: Callable[[GrpcFront], list[Row]] = lambda front: []
        self._front = front
        self._meter = FrontMeter(front.metrics, "grpc")
        self._crowds = Seldom(_log, "limit.reached")
        front.activity.requests["grpc"] = lambda: len(self.running)

    def change(self, front: GrpcFront) -> None:
        """Calls from now on are of `front`, which has the same limits and access; those that run
        are of the one that they began with."""
        self._front = front
        for row, other in zip(self.rows, self.rows_of(front), strict=True):
            row.serve, row.uses = other.serve, other.uses

    async def serve(self, row: Row, stream: Stream[Any, Any]) -> None:
        """What grpclib calls; raises `GRPCError` for every end but a good one."""
        limits = self._front.limits
        if len(self.running) >= limits.calls and not row.always:
            raise self._turn_away(row)
        call: Call[Any, Any] = Call(
            stream,
            row.method.request,
            row.method.reply,
            limits,
            self._front.pools,
            budget=limits.closure_bytes if row.holds else None,
            gathered=row.gathers,
        )
        left = None if stream.deadline is None else stream.deadline.time_remaining()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(row, call, left))
        self.running.add(task, call)
        over = loop.create_future()
        task.add_done_callback(lambda _: None if over.done() else over.set_result(None))
        try:
            await over
        except asyncio.CancelledError:
            # Nothing is left running behind.
            await end([task])
            raise
        finally:
            self.running.remove(task)
        refusal = _shutting_down() if task.cancelled() else task.result()
        if refusal is not None:
            raise GRPCError(refusal.status, refusal.message)

    async def _run(self, row: Row, call: Call[Any, Any], left: float | None) -> Refusal | None:
        began = perf_counter()
        # Unless something else is found out: whoever asked is gone.
        refusal: Refusal | None = Refusal(Status.CANCELLED, "cancelled")
        try:
            refusal = await self._serve(row, call, left)
        except asyncio.CancelledError:
            if call.given_up is None:
                raise
            refusal = call.given_up
        finally:
            self._settle(row, call, refusal, perf_counter() - began)
        return refusal

    async def _serve(self, row: Row, call: Call[Any, Any], left: float | None) -> Refusal | None:
        try:
            self._admit(row, call.authorization)
            with nullcontext() if left is None else bounded(left):
                await _serve(row, call)
        except Refusal as refusal:
            return refusal
        except StoreError as error:
            return refusal_of(error)
        except Exception as error:
            _log.error("request.failed", exc_info=error, route=row.route)
            return Refusal(Status.INTERNAL, "internal error")
        return None

    def _admit(self, row: Row, authorization: str | None) -> None:
        if self.draining.is_set() and not row.always:
            raise _shutting_down()
        # Before any message is read: what is asked for has no say in it.
        if (denied := self._front.access.check(row.right, authorization)) is not None:
            raise refusal_to(denied)

    def _turn_away(self, row: Row) -> GRPCError:
        """What a call too many gets, which is not even begun."""
        self._crowds.note(what="calls")
        status = Status.RESOURCE_EXHAUSTED
        self._meter.observe(row.route, status.name, OUTCOMES[status], 0.0, 0)
        return GRPCError(status, "too many calls at once: try again")

    def _settle(
        self, row: Row, call: Call[Any, Any], refusal: Refusal | None, seconds: float
    ) -> None:
        status = Status.OK if refusal is None else refusal.status
        outcome = OUTCOMES.get(status, "unknown")
        self._meter.observe(row.route, status.name, outcome, seconds, call.sent)
        if (told := call.told) is not None:
            told.status, told.outcome, told.bytes = status.name, outcome, call.sent
            told.reason = None if refusal is None else refusal.message
            self._front.explanations.end(told, perf_counter())
        if self._front.access_log:
            _log.info(
                "request",
                route=row.route,
                status=status.name,
                outcome=outcome,
                reason=None if refusal is None else refusal.message,
                bytes=call.sent,
                ms=round(seconds * 1000, 3),
            )
