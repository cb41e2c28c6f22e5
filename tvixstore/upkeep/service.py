"""What operators ask of a store: to keep paths, and to look whether all of it is sound."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from tvixstore.nix import StorePath
from tvixstore.pathinfo import Pin

# What a finding is about. A stray file takes room, and nothing is wrong with the store for it.
Kind = Literal[
    "chunk",
    "blob",
    "directory",
    "path",
    "pin",
    "calculated",
    "remembered",
    "access",
    "counts",
    "stray",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
# What was done about it.
#   found        nothing: it was not asked for
#   dropped      it is absent now, and comes again when it is wanted
#   refetched    a path, dropped, is here again from a substituter
#   rewritten    it is right now
#   removed      a stray file is gone
#   lost         a path, dropped, that nobody has
#   failed       it could not be repaired, or fetched again, now
#   unread       it could not be read, so nobody knows
Outcome = Literal[
    "found", "dropped", "refetched", "rewritten", "removed", "lost", "failed", "unread"
]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

_UNREPAIRED: Final = frozenset({"found", "lost", "failed"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: what (`key`: a digest, a path, a file), how, and what was done."""

    kind: Kind
    key: str
    reason: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check has come: objects of this phase, of about `total`; bytes read altogether."""

    phase: str
    done: int
    total: int | None
    bytes: int


@dataclass(slots=True)
class Summary:
    """What was looked at, and what came of it."""

    chunks: int = 0
    blobs: int = 0
    directories: int = 0
    paths: int = 0
    bytes: int = 0
    # Findings: all of them, stray files and what could not be read apart; those left unrepaired.
    damaged: int = 0
    unrepaired: int = 0
    # Paths among those that nobody has any more.
    lost: int = 0
    unread: int = 0
    strays: int = 0
    # Paths whose content is not all in this store, and is with a tier behind it.
    partial: int = 0

    def count(self, finding: Finding) -> None:
        if finding.outcome == "unread":
            self.unread += 1
        elif finding.kind == "stray":
            self.strays += 1
        else:
            self.damaged += 1
            self.unrepaired += finding.outcome in _UNREPAIRED
            self.lost += finding.outcome == "lost"


Event: TypeAlias = Progress | Finding | Summary


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pin, and the closure that it keeps: paths that are here, and the bytes of their NARs."""

    pin: Pin
    paths: int
    nar_size: int
    # Paths of the closure that are not here; what those refer to is not known.
    missing: tuple[StorePath, ...] = ()
    # Paths that were fetched to be pinned.
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class PinRequest:
    """`fetch`: what is not here yet is fetched from the substituters first."""

    store_path: StorePath
    comment: str | None = None
    fetch: bool = True


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """All of the store, or only these paths, with everything that they are made of."""

    repair: bool = False
    store_paths: Sequence[StorePath] = field(default=())


class Upkeep(ABC):
    """What `tvix-store pin`, `unpin`, `pins` and `verify` ask: of a daemon, or of a composition."""

    @abstractmethod
    async def pin(self, request: PinRequest) -> Pinned | None:
        """Keeps a path and what it refers to from eviction; `None` if it is absent.

        With `fetch` all of the closure is here when it returns; raises `Unavailable` where nobody
        knows, and `AbsentPath` where a part of it is nowhere: it is not pinned then.
        """

    @abstractmethod
    async def unpin(self, store_path: StorePath) -> bool:
        """`False` if it was not pinned."""

    @abstractmethod
    def pins(self) -> AsyncGenerator[Pinned, None]:
        """All pins, with their closures. Whoever stops early closes the generator."""

    @abstractmethod
    def verify(self, request: VerifyRequest) -> AsyncGenerator[Event, None]:
        """Looks whether what is kept is right. The last event is the summary.

        Closing the generator ends the work. Raises `AbsentPath` for a path that is not here.
        """
