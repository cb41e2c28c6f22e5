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
from tvixstore.policy.tasks import OUTRUN

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

# Not the loop's time: uvloop's has a resolution of 1 ms, and a warm answer takes microseconds.
clock: Clock = perf_counter


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


class Label(NamedTuple):
    """What a node is called, and of what type it is, as `compose show` has it."""

    node: str
    kind: str


class Trace:
    """What the steps of one request have in common. It holds none of them.

    What is not written at once has its default in the class: a warm lookup is traced in a few
    microseconds, of which each attribute that is set would take a good part.
    """

    is_open = True
    # How many more steps and notes fit, and how many did not.
    left = MOST
    left_out = 0
    # By kind of service and node.
    sums: dict[tuple[str, str], Sum] | None = None

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

    ended: float | None = None
    outcome: str | None = None
    reason: str | None = None
    bytes = 0
    notes: list[Note] | None = None
    children: list[Step] | None = None
    # Made when something below it is told.
    trace: Trace | None = None
    # Whether a node that has it is only kept as its `hit`, as long as nothing else is told.
    takes_hit = False
    hit: Label | None = None
    # Of a request, the store path that it turned out to be about.
    path: object = None

    def __init__(self, label: Label, call: str, began: float) -> None:
        self.label = label
        self.call = call
        self.began = began

    def opened(self) -> Trace:
        """Its trace."""
        if self.trace is None:
            self.trace = Trace()
            self.trace.is_open = self.ended is None
        return self.trace

    def below(self, label: Label, call: str) -> Step | None:
        """A step that begins now; `None` if there is no room for it."""
        trace = self.trace or self.opened()
        # As `has_room`, and `_hang`: of each lookup of many members there are dozens.
        if trace.is_open and trace.left > 0:
            trace.left -= 1
        elif not trace.has_room():
            return None
        step = Step(label, call, clock())
        step.trace = trace
        self.takes_hit = False
        if self.children is None:
            self.children = [step]
        else:
            self.children.append(step)
        return step

    def ended_below(
        self,
        label: Label,
        call: str,
        times: tuple[float, float],
        outcome: str,
        *,
        gathers: bool = False,
    ) -> Step | None:
        """A step that began and ended at those `times`; `None` if there is no room for it.

        If it `gathers`, what was asked since it began was asked by it.
        """
        if not self.opened().has_room():
            return None
        step = Step(label, call, times[0])
        step.trace = self.trace
        step.ended = times[1]
        step.outcome = outcome
        if gathers and self.children is not None:
            step.children = [each for each in self.children if each.began >= step.began]
            self.children = [each for each in self.children if each.began < step.began]
        self._hang(step)
        return step

    def end(self, outcome: str) -> None:
        self.outcome = outcome
        self.ended = clock()

    def fail(self, error: BaseException) -> None:
        """Ends it with what was raised."""
        self.end(outcome_of(error))
        if self.outcome != "cancelled":
            self.reason = bounded_text(str(error) or type(error).__name__)
        elif OUTRUN in error.args:
            self.reason = "another was first"

    def take_in(self, step: Step) -> None:
        """Has what `step` of another trace tells told here, too."""
        if self.opened().has_room():
            self._hang(step)

    def note(self, code: str, text: str = "", seconds: float | None = None) -> None:
        trace = self.opened()
        if self.notes is not None and len(self.notes) >= _NOTES:
            trace.left_out += trace.is_open
        elif trace.has_room():
            if self.notes is None:
                self.notes = []
            self.notes.append(Note(code, bounded_text(text), seconds))

    def _hang(self, step: Step) -> None:
        self.takes_hit = False
        if self.children is None:
            self.children = [step]
        else:
            self.children.append(step)


# Told as part of what takes it in.
_UNNAMED: Final = Label("", "")

# What is being done right now.
_here: ContextVar[Step | None] = ContextVar("step", default=None)


# The step that is under way; `None` if nothing is told. A function around it would take longer.
here: Callable[[], Step | None] = _here.get


def below(label: Label, call: str) -> Step | None:
    """A step of the call under way, that begins now; `None` if nothing is told."""
    above = _here.get()
    return None if above is None else above.below(label, call)


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


def cost(size: int) -> None:
    """Bytes that the call under way had come from elsewhere."""
    step = _here.get()
    if step is not None:
        step.bytes += size


async def traced(label: Label, call: str, answer: Awaitable[Answer]) -> Answer:
    """What `answer` gives; told as a step if anything is."""
    if (step := below(label, call)) is None:
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


def shared(label: Label = _UNNAMED, call: str = "") -> Step:
    """A step with a trace of its own, for work that others may join.

    Without a name it is told as part of what takes it in.
    """
    step = Step(label, call, clock())
    step.opened().left = MOST_SHARED
    return step


def is_told() -> bool:
    """Whether anything is told of what is being done."""
    step = _here.get()
    return step is not None and step.opened().is_open


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
    if step is None or not (trace := step.opened()).is_open:
        return
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


def spell(seconds: float) -> str:
    """`seconds` for people."""
    for size, unit in ((5400.0, "h"), (120.0, "min")):
        if seconds >= size:
            return f"{seconds / {'h': 3600, 'min': 60}[unit]:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def bounded_text(text: str) -> str:
    """`text`, cut where it is too long. Redacted before: half a URL does not look like one."""
    return text if len(text) <= TEXT else f"{redact(text)[:TEXT]}…"
