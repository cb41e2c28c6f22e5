"""The script of a `chaos` node: a line an outcome, in the order of calls.

A line is the kind of outcome, then how long it takes, then for how many calls it goes:
`"ok"`, `"error 200ms"`, `"absent x3"`, `"stall x*"` (for all calls that follow).
"""

from __future__ import annotations

from tvixstore.compose.values import format_duration, parse_duration, quote
from tvixstore.policy.chaos import KINDS, Kind, Outcome

# What may go wrong.
FAULTS: tuple[Kind, ...] = KINDS[1:]

_EXAMPLE = 'write a kind, a delay and a number of calls, such as "error", "ok 200ms" or "absent x3"'


def parse_step(value: object) -> tuple[Outcome, int | None]:
    """An outcome, and for how many calls it goes; `None` for all that follow."""
    if not isinstance(value, str) or not value.split():
        raise ValueError(f"{quote(value)} is no outcome: {_EXAMPLE}")
    word, *rest = value.split()
    kind = next((each for each in KINDS if each == word), None)
    if kind is None:
        raise ValueError(f"{quote(word)} is no kind of outcome: write one of {', '.join(KINDS)}")
    times: int | None = 1
    delay = 0.0
    if rest and rest[-1].startswith("x"):
        count = rest.pop()[1:]
        times = None if count == "*" else _count(value, count)
    if rest:
        delay = parse_duration(rest.pop())
    if rest:
        raise ValueError(f"{quote(value)} has too many words: {_EXAMPLE}")
    return Outcome(kind, delay), times


def format_step(outcome: Outcome, times: int | None) -> str:
    """The line that says so."""
    words: list[str] = [outcome.kind]
    if outcome.delay:
        words.append(format_duration(outcome.delay))
    if times != 1:
        words.append("x*" if times is None else f"x{times}")
    return " ".join(words)


def _count(value: str, count: str) -> int:
    if not (count.isascii() and count.isdecimal() and len(count) <= 9 and int(count) >= 1):
        raise ValueError(f"{quote(value)}: x{count} is no number of calls: {_EXAMPLE}")
    return int(count)
