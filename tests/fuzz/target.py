"""What is fuzzed: a parser, what it may refuse with, and what has to hold of what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tvixstore.errors import InvalidData

Value = TypeVar("Value")

_DATA = Path(__file__).parent.parent / "data"


def golden(name: str) -> Any:
    return json.loads((_DATA / name).read_text("utf-8"))


def nothing_more(data: bytes, value: object) -> None:
    """The law of a parser whose value has nothing to be held against."""


@dataclass(frozen=True)
class Target(Generic[Value]):
    """One parser that bytes of strangers reach.

    `parse` raises nothing but `refusals`, whatever it is given. `law` raises `AssertionError` where
    what was made of the bytes cannot be right.
    """

    parse: Callable[[bytes], Value]
    # Valid ones, and some that are refused late: mutants of them get further than noise.
    seeds: Sequence[bytes]
    law: Callable[[bytes, Value], None] = nothing_more
    refusals: tuple[type[Exception], ...] = (InvalidData,)
    # Words of the format, to be put anywhere.
    words: Sequence[bytes] = field(default=())
    # What it may allocate at most, however long what is announced: a piece, a dictionary.
    memory: int = 4 << 20

    def check(self, data: bytes) -> bool:
        """Whether it is taken. Raises whatever must not be."""
        try:
            value = self.parse(data)
        except self.refusals:
            return False
        self.law(data, value)
        return True


def of_text(parse: Callable[[str], Value]) -> Callable[[bytes], Value]:
    """`parse` for text, given any bytes: what is not UTF-8 becomes odd characters."""
    return lambda data: parse(data.decode(errors="replace"))


def stays(
    write: Callable[[Value], bytes], read: Callable[[bytes], Value]
) -> Callable[[bytes, Value], None]:
    """The law of a format that has several forms of a value: one of them is written."""

    def law(data: bytes, value: Value) -> None:
        written = write(value)
        again = read(written)
        assert again == value, (again, value)
        assert write(again) == written, (write(again), written)

    return law


def canonical(write: Callable[[Value], bytes]) -> Callable[[bytes, Value], None]:
    """The law of a format that has one form of a value, so that what is read is what is written."""

    def law(data: bytes, value: Value) -> None:
        assert write(value) == data, (write(value), data)

    return law


def text_stays(parse: Callable[[str], Value]) -> Callable[[bytes, Value], None]:
    """`stays` for what `str()` writes."""
    return stays(lambda value: str(value).encode(), lambda data: parse(data.decode()))
