"""What operators ask of a store: to keep paths, and to look whether all of it is sound."""

from tvixstore.upkeep.holdings import Holdings
from tvixstore.upkeep.local import LocalUpkeep
from tvixstore.upkeep.service import (
    KINDS,
    OUTCOMES,
    Event,
    Finding,
    Kind,
    Outcome,
    Pinned,
    PinRequest,
    Progress,
    Summary,
    Upkeep,
    VerifyRequest,
)

__all__ = [
    "KINDS",
    "OUTCOMES",
    "Event",
    "Finding",
    "Holdings",
    "Kind",
    "LocalUpkeep",
    "Outcome",
    "PinRequest",
    "Pinned",
    "Progress",
    "Summary",
    "Upkeep",
    "VerifyRequest",
]
