"""The RPCs, one row each: what both ends agree on, under every name that it goes by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from grpclib.const import Cardinality

from tvixstore.rpc import activity_messages, admin_messages, insight_messages, messages
from tvixstore.rpc.messages import Form

Request = TypeVar("Request")
Reply = TypeVar("Reply")

# Packages whose services are the same under either name.
TVIX: Final = "tvix"
SNIX: Final = "snix"
_BOTH: Final = (TVIX, SNIX)

_UNARY, _SERVED, _SENT = (
    Cardinality.UNARY_UNARY,
    Cardinality.UNARY_STREAM,
    Cardinality.STREAM_UNARY,
)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Reply]):
    """One RPC. `service` has its name without the first part of the package."""

    service: str
    name: str
    cardinality: Cardinality
    request: Form[Request]
    reply: Form[Reply]
    packages: tuple[str, ...] = _BOTH

    def path(self, package: str | None = None) -> str:
        """What it is called on the wire, in `package` (`tvix` or `snix`) or its only one."""
        return f"/{package or self.packages[0]}.{self.service}/{self.name}"


_BLOBS: Final = "castore.v1.BlobService"
_DIRECTORIES: Final = "castore.v1.DirectoryService"
_PATH_INFOS: Final = "store.v1.PathInfoService"
_PROXY: Final = "v1.Proxy"
_OUR_BLOBS: Final = "v1.Blobs"
_ADMIN: Final = "v1.Admin"
_INSIGHT: Final = "v1.Insight"
_OURS: Final = ("tvixstore",)

STAT_BLOB = Method(_BLOBS, "Stat", _UNARY, messages.STAT_BLOB, messages.BLOB_CHUNKS)
READ_BLOB = Method(_BLOBS, "Read", _SERVED, messages.READ_BLOB, messages.BLOB_DATA)
PUT_BLOB = Method(_BLOBS, "Put", _SENT, messages.BLOB_DATA, messages.BLOB_DIGEST)
GET_DIRECTORY = Method(_DIRECTORIES, "Get", _SERVED, messages.GET_DIRECTORY, messages.DIRECTORY)
PUT_DIRECTORY = Method(_DIRECTORIES, "Put", _SENT, messages.DIRECTORY, messages.ROOT_DIGEST)
GET_PATH_INFO = Method(_PATH_INFOS, "Get", _UNARY, messages.PATH_HASH, messages.PATH_INFO)
PUT_PATH_INFO = Method(_PATH_INFOS, "Put", _UNARY, messages.PATH_INFO, messages.PATH_INFO)
CALCULATE_NAR = Method(_PATH_INFOS, "CalculateNAR", _UNARY, messages.ROOT, messages.NAR_IDENTITY)
LIST_PATH_INFOS = Method(_PATH_INFOS, "List", _SERVED, messages.NOTHING, messages.PATH_INFO)
DESCRIBE = Method(_PROXY, "Describe", _UNARY, messages.DESCRIBE, messages.DESCRIPTION, _OURS)
OPEN_NAR = Method(_PROXY, "OpenNar", _SERVED, messages.OPEN_NAR, messages.NAR_DATA, _OURS)
LACKING_BLOBS = Method(
    _OUR_BLOBS, "Lacking", _UNARY, messages.BLOB_DIGESTS, messages.BLOB_DIGESTS, _OURS
)
BLOBS_AT_HAND = Method(
    _OUR_BLOBS, "AtHand", _SERVED, messages.SMALL_BLOBS, messages.BLOB_BATCH, _OURS
)
PUT_BLOBS = Method(_OUR_BLOBS, "Put", _SENT, messages.BLOB_BATCH, messages.BLOB_DIGESTS, _OURS)
PIN = Method(_ADMIN, "Pin", _UNARY, admin_messages.PIN, admin_messages.PINNED, _OURS)
UNPIN = Method(_ADMIN, "Unpin", _UNARY, admin_messages.UNPIN, admin_messages.UNPINNED, _OURS)
LIST_PINS = Method(
    _ADMIN, "ListPins", _SERVED, admin_messages.LIST_PINS, admin_messages.PINNED, _OURS
)
VERIFY = Method(_ADMIN, "Verify", _SERVED, admin_messages.VERIFY, admin_messages.EVENT, _OURS)
FORGET_ABSENCES = Method(
    _ADMIN, "ForgetAbsences", _UNARY, admin_messages.FORGET, admin_messages.FORGOTTEN, _OURS
)
WATCH = Method(
    _INSIGHT, "Watch", _SERVED, activity_messages.WATCH, activity_messages.SNAPSHOT, _OURS
)
EXPLAIN = Method(
    _INSIGHT, "Explain", _UNARY, insight_messages.EXPLAIN, insight_messages.EXPLANATION, _OURS
)
