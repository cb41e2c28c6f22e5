"""docs/resilience.md: its tables are written by `make fault-matrix`, all else by hand."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from tests.faults.matrix import (
    BESIDE,
    FAULTS,
    IMPOSSIBLE,
    MEMBERS,
    PLACES,
    Cell,
    Expected,
    Fault,
    Place,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.faults.scene import Seen

DOCUMENT = Path(__file__).parents[2] / "docs/resilience.md"

WORDS = {
    Expected("substituted"): "delivered",
    Expected("built"): "absent",
    Expected("failed", "failed"): "fails",
    Expected("failed", "substituted"): "fails, then delivered",
}
NOT_POSSIBLE = "–"
# Medians that are nearer to nothing than this are told as nothing: it is what they vary by.
NOISE = 0.1

Measured: TypeAlias = "Mapping[Cell, Sequence[Seen]]"


def place_table(place: Place, measured: Measured) -> str:
    """Outcomes and times of all faults at one place."""
    rows = [["fault", *(MEMBERS[beside] for beside in BESIDE)]]
    for fault in FAULTS:
        if (fault, place) in IMPOSSIBLE:
            rows.append([fault, *(NOT_POSSIBLE for _ in BESIDE)])
            continue
        cells = [Cell(fault, place, beside) for beside in BESIDE]
        rows.append([fault, *(_outcome(cell, measured) for cell in cells)])
    return _table(rows)


def said_table(measured: Measured) -> str:
    """What there is to be read of each fault."""
    rows = [["fault", "where", "alone, Nix says", "the daemon logs", "its breaker"]]
    rows += [
        [fault, place, *_said(fault, place, measured)]
        for fault in FAULTS
        for place in PLACES
        if (fault, place) not in IMPOSSIBLE
    ]
    return _table(rows)


def outcomes(text: str) -> dict[Cell, str]:
    """The outcome of each cell, as the document has it."""
    found = {}
    for place in PLACES:
        for line in _find(text, place)[1].strip().splitlines()[2:]:
            fault, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            for beside, cell in zip(BESIDE, cells, strict=True):
                if cell != NOT_POSSIBLE:
                    name = next(name for name in FAULTS if name == fault)
                    found[Cell(name, place, beside)] = re.split(r" \+| after", cell)[0]
    return found


def rewritten(text: str, blocks: Mapping[str, str]) -> str:
    """`text` with what stands between the marks of each name replaced."""
    for name, block in blocks.items():
        found = _find(text, name)
        text = f"{text[: found.start(1)]}\n{block}\n\n{text[found.end(1) :]}"
    return text


def _find(text: str, name: str) -> re.Match[str]:
    """Where between its marks the block of that name is: the match's first group."""
    found = re.search(rf"<!-- matrix: {re.escape(name)} -->\n(.*?)<!-- end -->", text, re.S)
    assert found is not None, f"the document has no place for {name}"
    return found


def _outcome(cell: Cell, measured: Measured) -> str:
    seen = measured[cell]
    first = seen[0]
    again = None if first.second is None else first.second.result
    word = WORDS[Expected(first.first.result, again)]
    took = median(one.first.seconds for one in seen)
    if first.first.result != "substituted":
        return f"{word} after {_seconds(took)}"
    usual = median(one.first.seconds for one in measured[Cell(None, cell.place, cell.beside)])
    return f"{word} +{_seconds(max(0.0, took - usual))}"


def _said(fault: Fault, place: Place, measured: Measured) -> list[str]:
    alone = measured[Cell(fault, place, 0)]
    seen = [one for beside in BESIDE for one in measured[Cell(fault, place, beside)]]
    events = sorted({event for one in seen for event, _ in one.events})
    failed = alone[0].second is not None
    breaker = "–" if not failed else "open" if all(one.left_alone for one in alone) else "closed"
    message = alone[0].first.message.partition(" (curl error")[0]
    return [f"`{message}`" if message else "–", ", ".join(f"`{e}`" for e in events) or "–", breaker]


def _seconds(seconds: float) -> str:
    if seconds < NOISE:
        return "0.0 s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *others = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, "|" + "---|" * len(rows[0]), *others])
