"""Requests that are told of: the last one for each path, of each kind, as many as there is room."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Literal

from tvixstore.policy.tracing import MOST, Step

RequestKind = Literal["lookup", "nar"]

# Paths that are told of, and steps and notes of those that have many: some 40 MB at most.
_PATHS: Final = 4096
_WEIGHT: Final = 100_000
# So many steps and notes of each path do not count.
_LIGHT: Final = 24


class Request(Step):
    """One request, which is above all steps that are taken for it.

    Its label has the front door, and its call what was asked there; `status`, `outcome`, `reason`
    and `bytes` are how it was answered.
    """

    takes_hit = True
    status: int | str | None = None
    path_hash = b""
    # What it counts in the table.
    weight = 0


@dataclass(eq=False)
class Recent:
    """The last request for each path that is asked for; paths that came first go first."""

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
        if self._weight and (before := requests.get(request.path_hash)) is not None:
            self._weight -= before.weight
            before.weight = 0
        requests[request.path_hash] = request
        if len(requests) > self.paths:
            self._forget_first()

    def weigh(self, request: Request) -> None:
        """It is over, and grows no more."""
        trace = request.trace
        if trace is None or (weight := MOST - trace.left) <= _LIGHT:
            return
        if self._requests.get(request.path_hash) is not request:
            return
        request.weight = weight
        self._weight += weight
        while self._weight > self.weight:
            self._forget_first()

    def _forget_first(self) -> None:
        _, gone = self._requests.popitem(last=False)
        self._weight -= gone.weight
        gone.weight = 0
