"""What a world is put together from. A planted bug is one of these, replaced by a wrong one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tvixstore.blob import BlobService, RacingBlobService
from tvixstore.blob.fallback import FallbackBlobService
from tvixstore.blob.metered import MeteredBlobService
from tvixstore.blob.negative import NegativeBlobService
from tvixstore.blob.timeout import TimeoutBlobService
from tvixstore.policy.breaker import Breaker
from tvixstore.policy.hedge import Budget
from tvixstore.policy.single_flight import SingleFlight


@dataclass(frozen=True)
class Parts:
    """The real ones."""

    fallback: Callable[..., BlobService] = FallbackBlobService
    race: Callable[..., BlobService] = RacingBlobService
    timeout: Callable[..., BlobService] = TimeoutBlobService
    negative: Callable[..., BlobService] = NegativeBlobService
    metered: Callable[..., BlobService] = MeteredBlobService
    breaker: Callable[..., Breaker] = Breaker
    budget: Callable[[], Budget] = Budget
    flights: Callable[[], SingleFlight[Any, Any]] = SingleFlight


REAL = Parts()

Call = Callable[[], Awaitable[Any]]
