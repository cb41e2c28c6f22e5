"""docs/resilience.md says what is expected, and has a row for everything."""

from __future__ import annotations

from tests.faults.document import DOCUMENT, WORDS, outcomes, rewritten
from tests.faults.matrix import CELLS, FAULTS, expected


def test_the_document_has_the_outcome_of_every_cell() -> None:
    told = outcomes(DOCUMENT.read_text())
    assert told == {cell: WORDS[expected(cell)] for cell in CELLS}


def test_the_document_explains_every_fault() -> None:
    head = DOCUMENT.read_text().partition("## How to read")[0]
    assert [fault for fault in FAULTS if fault.partition(" + ")[0] not in head] == []


def test_only_what_was_measured_is_written_anew() -> None:
    place = "by hand\n<!-- matrix: {} -->\n\n{{}}\n\n<!-- end -->\n"
    page = place.format("x") + place.format("y")
    once = rewritten(page.format("old", "old"), {"x": "new"})
    assert once == page.format("new", "old")
    assert rewritten(once, {"x": "new", "y": "newer"}) == page.format("new", "newer")
