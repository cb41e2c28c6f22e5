"""Why a call ends without its answer: every error of ours as a gRPC status, in one table."""

from __future__ import annotations

from typing import Final

from grpclib.const import Status

from tvixstore.access import Denied
from tvixstore.errors import (
    CorruptData,
    InvalidData,
    ReadOnly,
    StorageFull,
    StoreError,
    Unavailable,
    Unsupported,
)
from tvixstore.log import redact

# What is unknown is never NOT_FOUND: clients remember that.
GRPC_STATUS: Final[dict[type[StoreError], Status]] = {
    InvalidData: Status.INVALID_ARGUMENT,
    StorageFull: Status.RESOURCE_EXHAUSTED,
    Unavailable: Status.UNAVAILABLE,
    CorruptData: Status.DATA_LOSS,
    ReadOnly: Status.PERMISSION_DENIED,
    Unsupported: Status.UNIMPLEMENTED,
}

# For the metrics, as at the other front door; every other status is unknown.
OUTCOMES: Final[dict[Status, str]] = {
    Status.OK: "present",
    Status.NOT_FOUND: "absent",
    Status.INVALID_ARGUMENT: "invalid",
    Status.FAILED_PRECONDITION: "invalid",
    Status.RESOURCE_EXHAUSTED: "invalid",
    Status.UNAUTHENTICATED: "refused",
    Status.PERMISSION_DENIED: "refused",
    Status.UNIMPLEMENTED: "invalid",
    Status.INTERNAL: "error",
    Status.CANCELLED: "cancelled",
    Status.DEADLINE_EXCEEDED: "cancelled",
}

# A message travels in a header, and clients refuse headers of more than 8 KiB in all.
_MAX_MESSAGE = 1000


class Refusal(Exception):
    """Ends a call with `status`; `message` is for people."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        message = redact(message)
        self.message = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…"


def absent(what: object) -> Refusal:
    return Refusal(Status.NOT_FOUND, f"{what} is not here")


def refusal_to(denied: Denied) -> Refusal:
    """What a client is told who may not do that."""
    status = Status.UNAUTHENTICATED if denied.anonymous else Status.PERMISSION_DENIED
    return Refusal(status, denied.reason)


def refusal_of(error: StoreError) -> Refusal:
    """What a client is told of `error`."""
    for kind in type(error).__mro__:
        if (status := GRPC_STATUS.get(kind)) is not None:
            return Refusal(status, str(error) or kind.__name__)
    return Refusal(Status.INTERNAL, str(error))
