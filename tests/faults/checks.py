"""What has to hold of a cell that was lived through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.matrix import LATE, expected

if TYPE_CHECKING:
    from tests.faults.matrix import Cell
    from tests.faults.scene import Seen

# Nobody can see these strike but the daemon, as no request arrives.
_UNSEEN = {"black hole", "refused"}
_BLAMES = {"upstream.down", "upstream.rejected", "fill.failed"}


def wrong(cell: Cell, seen: Seen) -> list[str]:
    """What is not as it has to be, in words."""
    checks = [
        *_outcome(cell, seen),
        *_fault_was_met(cell, seen),
        *_state(seen),
        *_events(cell, seen),
    ]
    return [f"{cell}: {complaint}" for complaint in checks]


def _outcome(cell: Cell, seen: Seen) -> list[str]:
    wanted = expected(cell)
    got = (seen.first.result, None if seen.second is None else seen.second.result)
    if got == (wanted.result, wanted.again):
        return []
    return [f"expected {wanted}, got {got}:\n{seen.first.output}\n{seen.log}"]


def _fault_was_met(cell: Cell, seen: Seen) -> list[str]:
    if cell.place == "narinfo" and cell.fault in _UNSEEN:
        met = seen.asked.get("describe unknown", 0) + seen.asked.get("describe cancelled", 0) > 0
    else:
        met = seen.hits > 0 and bool(seen.asked)
    return [] if met else [f"the fault was not met: {seen.hits} times, {seen.asked}"]


def _state(seen: Seen) -> list[str]:
    results = {seen.first.result, seen.second and seen.second.result}
    should = 1 if "substituted" in results else 0
    return [] if len(seen.kept) == should else [f"the state has {seen.kept}"]


def _events(cell: Cell, seen: Seen) -> list[str]:
    complaints = [
        f"{event} blames {node}"
        for event, node in seen.events
        if event in _BLAMES and node != "faulty"
    ]
    changes = [event for event, _ in seen.events if event in ("upstream.down", "upstream.up")]
    if any(one == other for one, other in zip(changes, changes[1:], strict=False)):
        complaints.append(f"said more than once: {changes}")
    if cell.fault in LATE or cell.place == "narinfo":
        return complaints
    if not {("fill.failed", "faulty"), ("member.set_back", "faulty")} & set(seen.events):
        complaints.append("nobody names the faulty member")
    continued = any(event == "nar.continued" for event, _ in seen.events)
    if cell.beside and continued != (cell.place == "NAR, middle"):
        complaints.append("an unwanted nar.continued" if continued else "no nar.continued")
    return complaints
