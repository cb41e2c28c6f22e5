"""The cells of the matrix, and what is expected of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Fault = Literal[
    "black hole",
    "refused",
    "reset",
    "500",
    "503 + Retry-After",
    "404",
    "403",
    "slow first byte",
    "slow body",
    "stall",
    "truncation",
    "corruption",
    "wrong signature",
    "HTML",
    "redirect loop",
]
Place = Literal["narinfo", "NAR, start", "NAR, middle"]
# What became of the path that the client wanted: it has the upstream's bytes; it has built it
# itself, having been told that nobody has it; it stopped with an error.
Result = Literal["substituted", "built", "failed"]

FAULTS: tuple[Fault, ...] = get_args(Fault)
PLACES: tuple[Place, ...] = get_args(Place)
# How many healthy members are in the class beside the faulty one.
BESIDE = (0, 1, 2)
MEMBERS = {0: "alone", 1: "one healthy", 2: "two healthy"}

# The pieces of a cell that cannot be.
IMPOSSIBLE = {
    ("wrong signature", place): "signatures are in narinfos alone"
    for place in PLACES
    if place != "narinfo"
}


@dataclass(frozen=True, slots=True)
class Cell:
    """`fault` is `None` where all is well, which is what the others are measured against."""

    fault: Fault | None
    place: Place
    beside: int

    def __str__(self) -> str:
        return f"{self.fault or 'no fault'}, {self.place}, {MEMBERS[self.beside]}"


@dataclass(frozen=True, slots=True)
class Expected:
    """`again` is what a second run of the same command gives, where the first one failed."""

    result: Result
    again: Result | None = None


CELLS = [
    Cell(fault, place, beside)
    for fault in FAULTS
    for place in PLACES
    for beside in BESIDE
    if (fault, place) not in IMPOSSIBLE
]
BASELINES = [Cell(None, place, beside) for place in PLACES for beside in BESIDE]

# With nobody else to ask: the path is there, only late; or its upstream said that it has no such
# thing. All else is unknown, and an unknown answer fails.
LATE: frozenset[Fault | None] = frozenset({None, "slow first byte", "slow body"})
_ABSENT = {
    ("404", "narinfo"),
    ("403", "narinfo"),
    ("404", "NAR, start"),
    ("404", "NAR, middle"),
}


def expected(cell: Cell) -> Expected:
    if cell.fault == "corruption" and cell.place == "NAR, middle":
        # The wrong bytes are with the client before anybody can know that they are wrong.
        return Expected("failed", "substituted" if cell.beside else "failed")
    if cell.beside or cell.fault in LATE:
        return Expected("substituted")
    if (cell.fault, cell.place) in _ABSENT:
        return Expected("built")
    return Expected("failed", "failed")
