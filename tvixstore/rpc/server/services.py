"""What is served: a row for each RPC, under every name that it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from grpclib.const import Handler

from tvixstore.explain import Request as Explained
from tvixstore.explain import RequestKind, path_hash_of
from tvixstore.policy.tracing import Label, clock
from tvixstore.rpc import methods
from tvixstore.rpc.methods import Method
from tvixstore.rpc.server import health, reflection
from tvixstore.rpc.server.activity import ActivityHandlers
from tvixstore.rpc.server.admin import AdminHandlers
from tvixstore.rpc.server.blobs import BlobHandlers
from tvixstore.rpc.server.call import Call
from tvixstore.rpc.server.directories import DirectoryHandlers
from tvixstore.rpc.server.dispatch import Dispatcher, Row, Serve
from tvixstore.rpc.server.front import GrpcFront
from tvixstore.rpc.server.health import HealthHandlers
from tvixstore.rpc.server.insight import InsightHandlers
from tvixstore.rpc.server.path_infos import PathInfoHandlers
from tvixstore.rpc.server.proxy import ProxyHandlers
from tvixstore.rpc.server.reflection import ReflectionHandlers

Request = TypeVar("Request")
Reply = TypeVar("Reply")

_FRONT = Label("grpc", "request")
# Hears of a call's only request before it is handled.
Began = Callable[[Call[Any, Any], Any], None]


@dataclass(frozen=True, slots=True)
class Service:
    """One service under one name, as grpclib wants it."""

    handlers: Mapping[str, Handler]

    def __mapping__(self) -> Mapping[str, Handler]:
        return self.handlers


def services(front: GrpcFront, dispatcher: Dispatcher | None = None) -> list[Service]:
    """All services of `front`; with the codec `WireCodec` they can be served anywhere."""
    dispatcher = dispatcher or Dispatcher(front)
    dispatcher.rows_of = partial(_rows, dispatcher)
    rows = dispatcher.rows = _rows(dispatcher, front)
    names = _names([row.method for row in [*rows, *_meta_rows([], dispatcher, front)]])
    by_service: dict[str, dict[str, Handler]] = {name: {} for name in names}
    for row in [*rows, *_meta_rows(names, dispatcher, front)]:
        method = row.method
        handler = Handler(
            partial(dispatcher.serve, row), method.cardinality, method.request, method.reply
        )
        for package in method.packages:
            path = method.path(package)
            by_service[path.split("/")[1]][path] = handler
    return [Service(handlers) for handlers in by_service.values()]


def _rows(dispatcher: Dispatcher, front: GrpcFront) -> list[Row]:
    """Those that are about what `front` has."""
    insight = InsightHandlers(front.explanations, front.path_infos)
    rows = [
        *_store_rows(front),
        *_admin_rows(front, dispatcher),
        Row(methods.EXPLAIN, _unary(insight.explain), "read"),
    ]
    for row in rows:
        row.uses = front.uses
    return rows


def _names(served: list[Method[Any, Any]]) -> list[str]:
    return list(
        dict.fromkeys(f"{package}.{each.service}" for each in served for package in each.packages)
    )


def _store_rows(front: GrpcFront) -> list[Row]:
    blobs = BlobHandlers(front.content.blobs, front.limits.message_bytes, front.activity)
    directories = DirectoryHandlers(front.content.directories, front.activity)
    path_infos = PathInfoHandlers(front.path_infos, front.content, front.nars)
    proxy = ProxyHandlers(front.path_infos)
    told = partial(_told, front)
    return [
        Row(methods.STAT_BLOB, _unary(blobs.stat), "read"),
        Row(methods.READ_BLOB, _stream_out(blobs.read), "read"),
        Row(methods.PUT_BLOB, _stream_in(blobs.put), "write"),
        Row(methods.GET_DIRECTORY, _stream_out(directories.get), "read", gathers=True),
        Row(methods.PUT_DIRECTORY, _stream_in(directories.put), "write", holds=True),
        Row(
            methods.GET_PATH_INFO,
            _unary(path_infos.get, told("lookup", methods.GET_PATH_INFO)),
            "read",
        ),
        Row(methods.PUT_PATH_INFO, _unary(path_infos.put), "write"),
        Row(methods.CALCULATE_NAR, _unary(path_infos.calculate_nar), "read"),
        Row(methods.LIST_PATH_INFOS, _stream_out(path_infos.list), "read", gathers=True),
        Row(methods.DESCRIBE, _unary(proxy.describe, told("lookup", methods.DESCRIBE)), "read"),
        Row(methods.OPEN_NAR, _stream_out(proxy.open_nar, told("nar", methods.OPEN_NAR)), "read"),
        Row(methods.BLOBS_AT_HAND, _stream_out(blobs.at_hand), "read"),
        # For who is about to put them: what is found is held for him, so it is for no one else.
        Row(methods.LACKING_BLOBS, _unary(blobs.lacking), "write"),
        Row(methods.PUT_BLOBS, _stream_in(blobs.put_many), "write"),
    ]


def _admin_rows(front: GrpcFront, dispatcher: Dispatcher) -> list[Row]:
    admin = AdminHandlers(front.upkeep, dispatcher.draining, front.forget_absences)
    return [
        Row(methods.PIN, _unary(admin.pin), "admin"),
        Row(methods.UNPIN, _unary(admin.unpin), "admin"),
        Row(methods.LIST_PINS, _stream_out(admin.pins), "admin", gathers=True),
        Row(methods.FORGET_ABSENCES, _unary(admin.forget_absences), "admin"),
        Row(methods.VERIFY, _stream_out(admin.verify), "admin"),
    ]


def _meta_rows(names: list[str], dispatcher: Dispatcher, front: GrpcFront) -> list[Row]:
    """Those that tell of the server itself, of whose services these are the names, whatever
    `front` there is by then."""
    checks = HealthHandlers(names, dispatcher.draining)
    activity = ActivityHandlers(front.activity, dispatcher.draining)
    answers = _converse(ReflectionHandlers(names).answer)
    return [
        Row(health.CHECK, _unary(checks.check), None, always=True),
        Row(health.WATCH, _stream_out(checks.watch), None, always=True),
        Row(methods.WATCH, _stream_out(activity.watch), "read"),
        *(Row(method, answers, "read") for method in reflection.METHODS),
    ]


def _told(front: GrpcFront, kind: RequestKind, method: Method[Any, Any]) -> Began:
    """Has calls that ask for a path told of afterwards."""
    what = f"{method.service}/{method.name}"

    def began(call: Call[Any, Any], request: Any) -> None:
        if (path_hash := path_hash_of(request)) is not None:
            call.told = Explained(_FRONT, what, clock())
            call.told.path_hash = path_hash
            front.explanations.begin(kind, call.told)

    return began


def _untold(call: Call[Any, Any], request: Any) -> None:
    return None


def _unary(handler: Callable[[Request], Awaitable[Reply]], began: Began = _untold) -> Serve:
    async def serve(call: Call[Request, Reply]) -> None:
        request = await call.receive()
        began(call, request)
        await call.send(await handler(request))

    return serve


def _stream_out(
    handler: Callable[[Request], AsyncGenerator[Reply, None]], began: Began = _untold
) -> Serve:
    async def serve(call: Call[Request, Reply]) -> None:
        request = await call.receive()
        began(call, request)
        async with aclosing(handler(request)) as replies:
            async for reply in replies:
                await call.send(reply)
        await call.flush()

    return serve


def _stream_in(handler: Callable[[AsyncGenerator[Request, None]], Awaitable[Reply]]) -> Serve:
    async def serve(call: Call[Request, Reply]) -> None:
        async with aclosing(call.requests()) as requests:
            await call.send(await handler(requests))

    return serve


def _converse(
    handler: Callable[[AsyncGenerator[Request, None]], AsyncGenerator[Reply, None]],
) -> Serve:
    async def serve(call: Call[Request, Reply]) -> None:
        async with aclosing(call.requests()) as requests, aclosing(handler(requests)) as replies:
            async for reply in replies:
                await call.send(reply)

    return serve
