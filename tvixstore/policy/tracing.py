"""What was asked for one request, of whom, and how it answered: told step by step, as it happens.

Whoever serves a request begins a trace. It travels in the context, so that tasks which work for the
request write to it as well. Each node that is asked adds a step below that of whoever asked it, and
says in notes what else there is to know. Without a trace all of that is one look at the context.

Work that several requests share (a lookup under way, a download) has a trace of its own, which each
of them takes in: it may have begun before the request, and go on after it.

A trace is bounded, in steps and in text; what does not fit is counted. Texts are kept as they are,
and redacted when they are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, Token
from time import perf_counter
from typing import Final, NamedTuple, TypeVar

from tvixstore.errors import CorruptData, InvalidData
from tvixstore.log import redact

Answer = TypeVar("Answer")
Clock = Callable[[], float]
# `note`, or `untold`.
Tell = Callable[[str, str, float | None], None]

# Steps and notes of one trace, and characters of one text.
MOST: Final = 250
MOST_SHARED: Final = 60
TEXT: Final = 400
# Stores of blobs and Directories that are told apart, and notes of one step.
_SUMS: Final = 40
_NOTES: Final = 12


class Note(NamedTuple):
    """`code` says what kind of thing it is, `text` what about it; `seconds` where it is a time."""

    code: str
    text: str = ""
    seconds: float | None = None


class Sum:
    """How often a store of blobs or Directories was asked, and what came of it."""

    __slots__ = ("bytes", "calls", "outcomes", "seconds")

    def __init__(self) -> None:
        self.calls = 0
        self.bytes = 0
        self.seconds = 0.0
        self.outcomes: dict[str, int] = {}


class Trace:
    """What the steps of one request have in common. It holds none of them."""

    __slots__ = ("began", "clock", "is_open", "left", "left_out", "path", "sums")

    def __init__(self, clock: Clock = perf_counter, most: int = MOST) -> None:
        self.clock = clock
        self.began = clock()
        self.is_open = True
        # How many more steps and notes fit, and how many did not.
        self.left = most
        self.left_out = 0
        # The store path, once somebody knew it.
        self.path: object = None
        # By kind of service and node.
        self.sums: dict[tuple[str, str], Sum] | None = None

    def has_room(self) -> bool:
        """Whether there is room for one more step or note, which then counts."""
        if not self.is_open:
            return False
        if self.left <= 0:
            self.left_out += 1
            return False
        self.left -= 1
        return True


class Step:
    """One call of a node: `outcome` and `ended` are `None` until it is over."""

    __slots__ = (
        "began",
        "bytes",
        "call",
        "children",
        "ended",
        "kind",
        "node",
        "notes",
        "outcome",
        "reason",
        "trace",
    )

    def __init__(self, trace: Trace, node: str, kind: str, call: str) -> None:
        self.trace = trace
        self.node = node
        self.kind = kind
        self.call = call
        self.began = trace.clock()
        self.ended: float | None = None
        self.outcome: str | None = None
        self.reason: str | None = None
        self.bytes = 0
        self.notes: list[Note] | None = None
        self.children: list[Step] | None = None

    def below(self, node: str, kind: str, call: str) -> Step | None:
        """A step that begins now; `None` if there is no room for it."""
        trace = self.trace
        # As `has_room`, which takes a third of the time that a step takes.
        if trace.is_open and trace.left > 0:
            trace.left -= 1
            step = Step(trace, node, kind, call)
            if self.children is None:
                self.children = [step]
            else:
                self.children.append(step)
            return step
        trace.has_room()
        return None

    def end(self, outcome: str) -> None:
        self.outcome = outcome
        self.ended = self.trace.clock()

    def fail(self, error: BaseException) -> None:
        """Ends it with what was raised."""
        self.end(outcome_of(error))
        if self.outcome != "cancelled":
            self.reason = bounded_text(str(error) or type(error).__name__)

    def take_in(self, step: Step) -> None:
        """Has what `step` of another trace tells told here, too."""
        if self.trace.has_room():
            if self.children is None:
                self.children = []
            self.children.append(step)

    def note(self, code: str, text: str = "", seconds: float | None = None) -> None:
        if self.notes is not None and len(self.notes) >= _NOTES:
            self.trace.left_out += 1
        elif self.trace.has_room():
            if self.notes is None:
                self.notes = []
            self.notes.append(Note(code, bounded_text(text), seconds))


# What is being done right now.
_here: ContextVar[Step | None] = ContextVar("step", default=None)


def here() -> Step | None:
    """The step that is under way; `None` if nothing is told."""
    return _here.get()


def below(node: str, kind: str, call: str) -> Step | None:
    """A step of the call under way, that begins now; `None` if nothing is told."""
    above = _here.get()
    return None if above is None else above.below(node, kind, call)


def begin(step: Step) -> Token[Step | None]:
    """From now on this is what is being done, until `over`."""
    return _here.set(step)


def over(token: Token[Step | None]) -> None:
    _here.reset(token)


def note(code: str, text: str = "", seconds: float | None = None) -> None:
    """Says something of the call that is under way."""
    step = _here.get()
    if step is not None:
        step.note(code, text, seconds)


def untold(code: str, text: str = "", seconds: float | None = None) -> None:
    """In place of `note`, for policies around what is asked too often to be told of."""


def found(path: object) -> None:
    """The store path that all of this is about."""
    step = _here.get()
    if step is not None:
        step.trace.path = path


def cost(size: int) -> None:
    """Bytes that the call under way had come from elsewhere."""
    step = _here.get()
    if step is not None:
        step.bytes += size


async def traced(node: str, kind: str, call: str, answer: Awaitable[Answer]) -> Answer:
    """What `answer` gives; told as a step if anything is."""
    if (step := below(node, kind, call)) is None:
        return await answer
    token = _here.set(step)
    try:
        result = await answer
    except BaseException as error:
        step.fail(error)
        raise
    finally:
        _here.reset(token)
    step.end("absent" if result is None else "present")
    return result


def shared(node: str = "", kind: str = "", call: str = "") -> Step | None:
    """A step with a trace of its own, for work that others may join; `None` if nothing is told.

    Without a name it is told as part of what joins it.
    """
    above = _here.get()
    return None if above is None else Step(Trace(above.trace.clock, MOST_SHARED), node, kind, call)


def take_in(step: Step | None) -> None:
    """Has what `step` of another trace tells told here, too."""
    above = _here.get()
    if above is not None and step is not None:
        above.take_in(step)


def apart(step: Step | None = None) -> Context:
    """A context for work that outlives its caller, with nothing in it but `step`."""
    context = Context()
    if step is not None:
        context.run(_here.set, step)
    return context


def add_up(
    service: str, node: str, outcome: str | None, seconds: float = 0.0, size: int = 0
) -> None:
    """Counts a call (or, without an outcome, bytes) of a store that is asked too often to be told
    of call by call."""
    step = _here.get()
    if step is None or not step.trace.is_open:
        return
    trace = step.trace
    if trace.sums is None:
        trace.sums = {}
    found = trace.sums.get((service, node))
    if found is None:
        if len(trace.sums) >= _SUMS:
            trace.left_out += 1
            return
        found = trace.sums[service, node] = Sum()
    found.bytes += size
    if outcome is not None:
        found.calls += 1
        found.seconds += seconds
        found.outcomes[outcome] = found.outcomes.get(outcome, 0) + 1


def outcome_of(error: BaseException) -> str:
    """How traces, metrics and logs call a call that ended in `error`."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, CorruptData | InvalidData):
        return "rejected"
    return "unknown"


def bounded_text(text: str) -> str:
    """`text`, cut where it is too long. Redacted before: half a URL does not look like one."""
    return text if len(text) <= TEXT else f"{redact(text)[:TEXT]}…"
