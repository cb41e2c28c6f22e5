"""What an answer that is none means, in terms of stores: whose fault it is, and why."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import ProtocolError as CallError
from grpclib.exceptions import StreamTerminatedError
from h2.exceptions import ProtocolError

from tvixstore.errors import CorruptData, InvalidData, ReadOnly, StoreError, Unsupported
from tvixstore.rpc.methods import (
    CALCULATE_NAR,
    LACKING_BLOBS,
    LIST_PINS,
    PIN,
    PUT_BLOB,
    PUT_BLOBS,
    PUT_DIRECTORY,
    PUT_PATH_INFO,
    UNPIN,
    VERIFY,
    Method,
)

# What ends a call without a word of the peer's.
LOST: Final = (StreamTerminatedError, ProtocolError, CallError, OSError)
# Calls that bring the peer something to judge, and what it may say against that.
_JUDGED: Final = frozenset(
    {LACKING_BLOBS, PUT_BLOB, PUT_BLOBS, PUT_DIRECTORY, PUT_PATH_INFO, CALCULATE_NAR}
)
_REFUSALS: Final[dict[Status, type[StoreError]]] = {
    Status.INVALID_ARGUMENT: InvalidData,
    Status.PERMISSION_DENIED: ReadOnly,
}
# Those of operators, whom it also tells what can never be.
_ADMIN: Final = frozenset({PIN, UNPIN, LIST_PINS, VERIFY})
_ADMIN_REFUSALS: Final = _REFUSALS | {
    Status.FAILED_PRECONDITION: Unsupported,
    Status.DATA_LOSS: CorruptData,
}


def why(error: Exception) -> str:
    """Why a connection did not come about, or was lost."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message} (see ca_file)"
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error) or type(error).__name__


def refusals(method: Method[Any, Any] | None) -> Mapping[Status, type[StoreError]]:
    """What the peer may say of a call that is not merely that it cannot answer now."""
    if method in _ADMIN:
        return _ADMIN_REFUSALS
    return _REFUSALS if method in _JUDGED else {}
