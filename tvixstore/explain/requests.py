"""Requests that are told of: the last one for each path, of each kind, as many as there is room."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from tvixstore.policy import tracing
from tvixstore.policy.tracing import Step, Trace

if TYPE_CHECKING:
    from contextvars import Token

RequestKind = Literal["lookup", "nar"]

# Paths that are told of, and the steps and notes of all of them together: some 30 MB at most.
_PATHS: Final = 4096
_WEIGHT: Final = 100_000


class Request:
    """One request; `outcome` is `None` while it is under way."""

    __slots__ = (
        "at",
        "bytes",
        "ended",
        "front",
        "kind",
        "outcome",
        "path_hash",
        "reason",
        "status",
        "step",
        "token",
        "weight",
        "what",
    )

    def __init__(self, kind: RequestKind, path_hash: bytes, front: str, what: str) -> None:
        self.kind: RequestKind = kind
        self.path_hash = path_hash
        # `http` or `grpc`, and what was asked there.
        self.front = front
        self.what = what
        self.at = time.time()
        # Its own step is above all others.
        self.step = Step(Trace(), "", "request", what)
        self.ended: float | None = None
        self.status: int | str | None = None
        self.outcome: str | None = None
        self.reason: str | None = None
        self.bytes = 0
        # What it takes in the table; 0 as long as it grows.
        self.weight = 0
        self.token: Token[Step | None] | None = None

    def begin(self) -> None:
        """What this task does from now on is done for the request."""
        self.token = tracing.begin(self.step)

    def leave(self) -> None:
        """This task does something else from now on."""
        if self.token is not None:
            tracing.over(self.token)
            self.token = None


@dataclass(eq=False)
class Recent:
    """The last request for each path that is asked for; those begun longest ago go first."""

    paths: int = _PATHS
    weight: int = _WEIGHT
    _requests: OrderedDict[bytes, Request] = field(default_factory=OrderedDict, repr=False)
    _weight: int = field(default=0, init=False, repr=False)

    def __len__(self) -> int:
        return len(self._requests)

    def get(self, path_hash: bytes) -> Request | None:
        return self._requests.get(path_hash)

    def add(self, request: Request) -> None:
        """In place of the one before it. It may still be under way."""
        requests = self._requests
        before = requests.pop(request.path_hash, None)
        if before is not None:
            self._weight -= before.weight
        requests[request.path_hash] = request
        if len(requests) > self.paths:
            self._forget_oldest()

    def weigh(self, request: Request, weight: int) -> None:
        """It is over, and takes that much."""
        if self._requests.get(request.path_hash) is not request:
            return
        request.weight = weight
        self._weight += weight
        while self._weight > self.weight:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, gone = self._requests.popitem(last=False)
        self._weight -= gone.weight
