"""What a trace comes to, in one sentence: who had it, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tvixstore.policy.tracing import spell

Document = dict[str, Any]

# Nodes that choose among others. What they choose among are called members here, each with all the
# policies around it.
_CHOICES: Final = frozenset({"race", "fallback", "cache", "combined", "mirror", "shard"})
# The call that says most of where something came from comes first.
_CALLS: Final = ("open_nar", "get", "describe")
_TROUBLE: Final = ("unknown", "rejected")
_TOLD: Final = {
    "absent": "had nothing",
    "unknown": "could not say",
    "rejected": "is not believed",
    "cancelled": "cancelled",
}
_LEFT_ALONE: Final = "breaker.open"
_REMEMBERED: Final = "memory.absent"


def sum_up(request: Document) -> str:
    """`request` in a sentence that begins with its outcome."""
    outcome = request["outcome"]
    members = list(members_of(_telling(request["steps"])))
    parts = [_MAIN.get(outcome, _failed)(request, members), *_others(outcome, members)]
    return f"{outcome}: {'; '.join(part for part in parts if part)}"


def _telling(steps: Sequence[Document]) -> list[Document]:
    """Those that say most: of a NAR how it was opened, and not how it was looked up before."""
    calls = {step["call"] for step in steps}
    call = next((call for call in _CALLS if call in calls), None)
    return [step for step in steps if step["call"] == call]


def members_of(steps: Sequence[Document]) -> Iterator[Document]:
    """The outermost steps that no choice is made in."""
    for step in steps:
        if _chooses(step):
            yield from members_of(step["steps"])
        else:
            yield step


def name_of(step: Document) -> str:
    """What a member is called: as what its policies are around, and not as the address of that."""
    while step["steps"] and step["steps"][0]["kind"] != "download":
        step = step["steps"][0]
    return str(step["node"]).partition("/")[0]


def spell_size(size: float) -> str:
    """So many bytes, for people."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def downloads_of(steps: Sequence[Document]) -> Iterator[Document]:
    """The downloads that were begun or joined."""
    for step in steps:
        if step["kind"] == "download":
            yield step
        yield from downloads_of(step["steps"])


def _chooses(step: Document) -> bool:
    return step["kind"] in _CHOICES or any(map(_chooses, step["steps"]))


def _present(request: Document, members: Sequence[Document]) -> str:
    had = [each for each in members if each["outcome"] == "present"]
    took = spell(request["seconds"])
    # What another one also had came too late.
    parts = [f"{name_of(had[0])} had it, {took}" if had else f"answered in {took}"]
    parts += [_download(each) for each in downloads_of(request["steps"])]
    return "; ".join(parts)


def _download(step: Document) -> str:
    size, seconds = spell_size(step["bytes"]), spell(step["seconds"])
    how = {
        "done": ", and are kept",
        "passed": f", and are not kept: {step['reason']}",
        "failed": f", and then it failed: {step['reason']}",
        "cancelled": ", and then it was stopped",
    }.get(step["outcome"], " so far")
    return f"{size} came from {step['node']} in {seconds}{how}"


def _absent(request: Document, members: Sequence[Document]) -> str:
    remembered = [
        note for each in members if not each["steps"] for note in _notes(each, _REMEMBERED)
    ]
    if remembered and len(members) == 1:
        return f"nobody had it lately, {remembered[0]['text']}"
    return f"nobody has it, {spell(request['seconds'])}"


def _waiting(request: Document, members: Sequence[Document]) -> str:
    names = _names(each for each in members if each["outcome"] == "waiting")
    names = names or _names(downloads_of(request["steps"]))
    return f"for {spell(request['seconds'])} now" + (f", for {names}" if names else "")


def _failed(request: Document, members: Sequence[Document]) -> str:
    failed = [each for each in members if each["outcome"] in _TROUBLE and not _is_skipped(each)]
    took = spell(request["seconds"])
    if failed:
        told = [f"{name_of(each)} {_TOLD[each['outcome']]} ({each['reason']})" for each in failed]
        return "; ".join([*dict.fromkeys(told), took])
    if request["reason"] is not None:
        return f"{request['reason']}, {took}"
    waited = _names(each for each in members if each["outcome"] == "cancelled")
    return f"after {took}, while waiting for {waited}" if waited else f"after {took}"


_MAIN: Final = {"present": _present, "absent": _absent, "waiting": _waiting}


def _others(outcome: str, members: Sequence[Document]) -> Iterator[str]:
    """What became of those who did not bring the answer."""
    # The reasons of those who failed are told already.
    told = [
        kind for kind in _TOLD if kind != outcome and (outcome in _MAIN or kind not in _TROUBLE)
    ]
    for kind in told:
        group = [each for each in members if each["outcome"] == kind and not _is_skipped(each)]
        if group:
            yield f"{_names(group)} {_TOLD[kind]}"
    for each in filter(_is_skipped, members):
        (note, *_) = _notes(each, _LEFT_ALONE)
        yield f"{name_of(each)} skipped ({note['text']})"


def _is_skipped(step: Document) -> bool:
    return any(_notes(step, _LEFT_ALONE))


def _notes(step: Document, code: str) -> Iterator[Document]:
    """Notes of that code, of the step or of what is below it."""
    yield from (note for note in step["notes"] if note["code"] == code)
    for each in step["steps"]:
        yield from _notes(each, code)


def _names(steps: Iterator[Document] | Sequence[Document]) -> str:
    return ", ".join(dict.fromkeys(map(name_of, steps)))
