"""A trace as a document: what `/_tvix/explain/` and `tvix-store explain --json` hand out.

Times are in seconds, those of steps since the request began: work that it shares with others may
have begun before it. The schema is in docs/operating.md, and its names stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tvixstore.explain.requests import Request
from tvixstore.explain.sentence import sum_up
from tvixstore.log import redact
from tvixstore.policy.tracing import Note, Step, Trace, bounded_text

Document = dict[str, Any]

# Of what is shared, so much within each other: a step cannot come to hold itself, but may lie deep.
_DEPTH = 40


def document_of(
    digits: str, lookup: Request | None, nar: Request | None, dry_run: Request | None
) -> Document:
    """What is known of the path with that hash."""
    known = [each.step.trace.path for each in (dry_run, lookup, nar) if each is not None]
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
    trace = request.step.trace
    ended = request.ended
    told = {
        "at": datetime.fromtimestamp(request.at, UTC).isoformat(timespec="milliseconds"),
        "front": request.front,
        "request": request.what,
        "status": request.status,
        "outcome": request.outcome or "waiting",
        "reason": None if request.reason is None else redact(request.reason),
        "seconds": _rounded((trace.clock() if ended is None else ended) - trace.began),
        "bytes": request.bytes,
        "notes": [_note(note) for note in notes_of(request.step)],
        "steps": [step_document(step, trace) for step in children_of(request.step)],
        "content": _sums(trace),
        "left_out": trace.left_out,
    }
    return {"summary": sum_up(told), **told}


def step_document(step: Step, trace: Trace, depth: int = _DEPTH) -> Document:
    """A step and what is below it, in the order in which it was asked."""
    ended = step.ended
    below = children_of(step) if depth else []
    return {
        "node": step.node,
        "kind": step.kind,
        "call": step.call,
        "at": _rounded(step.began - trace.began),
        "seconds": _rounded((step.trace.clock() if ended is None else ended) - step.began),
        "outcome": step.outcome or "waiting",
        "reason": None if step.reason is None else redact(step.reason),
        "bytes": _bytes(step),
        "notes": [_note(note) for note in notes_of(step)],
        "steps": [step_document(each, trace, depth - 1) for each in below],
    }


def children_of(step: Step) -> list[Step]:
    """What is directly below it; shared work without a name counts as its own."""
    return sorted(_children(step), key=lambda each: each.began)


def _children(step: Step) -> Iterator[Step]:
    for child in tuple(step.children or ()):
        if child.kind:
            yield child
        else:
            yield from _children(child)


def notes_of(step: Step) -> Iterator[Note]:
    yield from tuple(step.notes or ())
    for child in tuple(step.children or ()):
        if not child.kind:
            yield from notes_of(child)


def _bytes(step: Step) -> int:
    shared = [child for child in tuple(step.children or ()) if not child.kind]
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


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
