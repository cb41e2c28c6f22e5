"""gRPC's health service: whether the server, or one service of it, can be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from grpclib.const import Cardinality

from tvixstore.castore.message import Message, number_field, text_field
from tvixstore.rpc.messages import Form
from tvixstore.rpc.methods import Method
from tvixstore.rpc.server.refusals import absent


class Serving(IntEnum):
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


_REQUEST: Final[Form[str]] = Form(
    "HealthCheckRequest",
    lambda service: text_field(1, service),
    lambda data: Message(data, "HealthCheckRequest").text(1, "service"),
)
_REPLY: Final[Form[Serving]] = Form(
    "HealthCheckResponse",
    lambda status: number_field(1, status),
    lambda data: Serving(Message(data, "HealthCheckResponse").number(1, "status")),
)

_SERVICE: Final = "health.v1.Health"
CHECK: Final = Method(
    _SERVICE, "Check", Cardinality.UNARY_UNARY, _REQUEST, _REPLY, packages=("grpc",)
)
WATCH: Final = Method(
    _SERVICE, "Watch", Cardinality.UNARY_STREAM, _REQUEST, _REPLY, packages=("grpc",)
)


@dataclass(eq=False, slots=True)
class HealthHandlers:
    services: Collection[str]
    draining: asyncio.Event

    async def check(self, service: str) -> Serving:
        if not self._knows(service):
            raise absent(f"service {service!r}")
        return self._now()

    async def watch(self, service: str) -> AsyncGenerator[Serving, None]:
        if not self._knows(service):
            # It may come to be served, says the protocol. Here it does not: the end says so.
            yield Serving.SERVICE_UNKNOWN
            return
        if self._now() is Serving.SERVING:
            yield Serving.SERVING
            await self.draining.wait()
        yield Serving.NOT_SERVING

    def _knows(self, service: str) -> bool:
        return service == "" or service in self.services

    def _now(self) -> Serving:
        return Serving.NOT_SERVING if self.draining.is_set() else Serving.SERVING
