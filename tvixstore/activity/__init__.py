"""What is under way just now: for operators who look at a daemon, and for readers who wait."""

from tvixstore.activity.following import Waiting, follow, following, note
from tvixstore.activity.progress import Progress, watching
from tvixstore.activity.registry import Activity, UpstreamState
from tvixstore.activity.waits import Waits, waited_for
from tvixstore.activity.watch import LONGEST, SHORTEST, Watch
from tvixstore.activity.work import Measured, Phase, Work

__all__ = [
    "LONGEST",
    "SHORTEST",
    "Activity",
    "Measured",
    "Phase",
    "Progress",
    "UpstreamState",
    "Waiting",
    "Waits",
    "Watch",
    "Work",
    "follow",
    "following",
    "note",
    "waited_for",
    "watching",
]
