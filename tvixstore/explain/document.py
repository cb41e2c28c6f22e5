"""A trace as a document: what `/_tvix/explain/` and `tvix-store explain --json` hand out.

Times are in seconds, those of steps since the request began: work that it shares with others may
have begun before it. The schema is in docs/operating.md, and its names stay.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tvixstore.explain.requests import Request
from tvixstore.explain.sentence import sum_up
from tvixstore.log import redact
from tvixstore.policy.tracing import Note, Step, Trace, bounded_text, clock

Document = dict[str, Any]

# Of what is shared, so much within each other: a step cannot come to hold itself, but may lie deep.
_DEPTH = 40


def document_of(
    digits: str, lookup: Request | None, nar: Request | None, dry_run: Request | None
) -> Document:
    """What is known of the path with that hash."""
    known = [each.path for each in (dry_run, lookup, nar) if each is not None]
    path = next((path for path in known if path is not None), None)
    return {
        "path_hash": digits,
        "store_path": None if path is None else str(path),
        "lookup": None if lookup is None else request_document(lookup),
        "nar": None if nar is None else request_document(nar),
        "dry_run": None if dry_run is None else request_document(dry_run),
    }


def request_document(request: Request) -> Document:
    """One request, with all that was asked for it."""
    trace = request.trace or Trace()
    steps = [step_document(step, request.began) for step in children_of(request)]
    told = {
        "at": _time(request.began),
        "front": request.label.node,
        "request": request.call,
        "status": None if request.ended is None else request.status,
        "outcome": "waiting" if request.ended is None else request.outcome,
        "reason": None if request.reason is None else redact(request.reason),
        "seconds": _rounded(_ended(request) - request.began),
        "bytes": request.bytes,
        "notes": [_note(note) for note in notes_of(request)],
        "steps": [*_hit(request), *steps],
        "content": _sums(trace),
        "left_out": trace.left_out,
    }
    return {"summary": sum_up(told), **told}


def step_document(step: Step, began: float, depth: int = _DEPTH) -> Document:
    """A step of a request that `began` then, and what is below it, in the order of time."""
    below = children_of(step) if depth else []
    return {
        "node": step.label.node,
        "kind": step.label.kind,
        "call": step.call,
        "at": _rounded(step.began - began),
        "seconds": _rounded(_ended(step) - step.began),
        "outcome": step.outcome or "waiting",
        "reason": None if step.reason is None else redact(step.reason),
        "bytes": _bytes(step),
        "notes": [_note(note) for note in notes_of(step)],
        "steps": [step_document(each, began, depth - 1) for each in below],
    }


def _hit(request: Request) -> list[Document]:
    """Who described it at once, as a step that took no time worth measuring."""
    if request.hit is None:
        return []
    step = Step(request.hit, "describe", request.began)
    step.ended = request.began
    step.outcome = "present"
    return [step_document(step, request.began)]


def children_of(step: Step) -> list[Step]:
    """What is directly below it; shared work without a name counts as its own."""
    return sorted(_children(step), key=lambda each: each.began)


def _children(step: Step) -> Iterator[Step]:
    for child in tuple(step.children or ()):
        if child.label.kind:
            yield child
        else:
            yield from _children(child)


def notes_of(step: Step) -> Iterator[Note]:
    yield from tuple(step.notes or ())
    for child in tuple(step.children or ()):
        if not child.label.kind:
            yield from notes_of(child)


def _bytes(step: Step) -> int:
    shared = [child for child in tuple(step.children or ()) if not child.label.kind]
    return step.bytes + sum(map(_bytes, shared))


def _note(note: Note) -> Document:
    seconds = None if note.seconds is None else _rounded(note.seconds)
    return {"code": note.code, "text": bounded_text(redact(note.text)), "seconds": seconds}


def _sums(trace: Trace) -> list[Document]:
    """What was asked of blobs and Directories."""
    return [
        {
            "service": service,
            "node": node,
            "calls": found.calls,
            "seconds": _rounded(found.seconds),
            "bytes": found.bytes,
            "outcomes": dict(found.outcomes),
        }
        for (service, node), found in sorted((trace.sums or {}).items())
    ]


def _ended(step: Step) -> float:
    """Its end, or now if it goes on."""
    return clock() if step.ended is None else step.ended


def _time(moment: float) -> str:
    """A moment of the traces' clock by the wall's."""
    at = time.time() - clock() + moment
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
