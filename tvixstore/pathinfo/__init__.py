"""Path infos: what is known of store paths, and everywhere that it can be kept or asked for."""

from tvixstore.pathinfo.access import LastAccess
from tvixstore.pathinfo.answer_rows import ABSENT, Absent
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.pathinfo.countersigning import CountersigningPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.info import Description, PathInfo
from tvixstore.pathinfo.local import LocalPathInfoService
from tvixstore.pathinfo.lru import LruPathInfoService
from tvixstore.pathinfo.memory import MemoryPathInfoService
from tvixstore.pathinfo.metered import MeteredPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.pathinfo.pins import Pin, Pins
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.readonly import ReadOnlyPathInfoService
from tvixstore.pathinfo.remembered import RememberedAnswers
from tvixstore.pathinfo.required import SignatureRequiredPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.service import PathInfoService
from tvixstore.pathinfo.signing import Signer, SigningPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.pathinfo.verify import VerifyPathInfoService

__all__ = [
    "ABSENT",
    "Absent",
    "BreakerPathInfoService",
    "CachedPathInfoService",
    "CountersigningPathInfoService",
    "Description",
    "FallbackPathInfoService",
    "LastAccess",
    "LocalPathInfoService",
    "LruPathInfoService",
    "MemoryPathInfoService",
    "MeteredPathInfoService",
    "NegativePathInfoService",
    "OptionalPathInfoService",
    "PathInfo",
    "PathInfoService",
    "Pin",
    "Pins",
    "RacingPathInfoService",
    "ReadOnlyPathInfoService",
    "RememberedAnswers",
    "RetryPathInfoService",
    "SignatureRequiredPathInfoService",
    "Signer",
    "SigningPathInfoService",
    "TimeoutPathInfoService",
    "VerifyPathInfoService",
]
