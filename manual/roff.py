"""Text for people in the macros of man(7) that groff and mandoc have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from textwrap import wrap

from tvixstore import __version__

# Of the text, not of the build: the same text makes the same page.
DATE = "2026-11-25"

wrapped = partial(wrap, width=78, break_long_words=False, break_on_hyphens=False)


def head(title: str, section: int, source: str) -> list[str]:
    """How a page begins that `make manual` makes from `source`."""
    return [
        rf".\" Made from {source} by `make manual`.",
        f'.TH {escaped(title.upper())} {section} {DATE} "tvixstore {__version__}" "tvixstore"',
        # Ragged, and nothing is hyphenated: much of it is to be typed.
        ".nh",
        ".ad l",
    ]


def tagged(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for tag, text in rows for line in (".TP", tag, marked(text))]


def bold(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((rf"\fB{escaped(tag)}\fR", text) for tag, text in rows)


def italic(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((rf"\fI{escaped(tag)}\fR", text) for tag, text in rows)


def paragraphs(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in (".PP", marked(text))][1:]


def example(lines: Iterable[str]) -> list[str]:
    """Lines as they are, set in."""
    return [".PP", ".RS 4", ".nf", *map(line_of, lines), ".fi", ".RE"]


def marked(text: str) -> str:
    """Help for people in roff: what is in backticks is bold."""
    parts = text.split("`")
    bold = [
        rf"\fB{escaped(part)}\fR" if index % 2 else escaped(part)
        for index, part in enumerate(parts)
    ]
    # A sentence begins a line, and no line is long, as mandoc wants it.
    sentences = re.split(r"(?<=[.!?]) +(?=\S)", "".join(bold))
    return _line_start("\n".join(line for each in sentences for line in wrapped(each)))


def line_of(text: str) -> str:
    return _line_start(escaped(text))


def escaped(text: str) -> str:
    escapes = {"\\": r"\e", "-": r"\-", "…": "...", "~": r"\(ti", "^": r"\(ha", "'": r"\(aq"}
    return "".join(escapes.get(character, character) for character in text)


def _line_start(text: str) -> str:
    """What begins with a dot or a quote would be a macro."""
    return re.sub(r"^(?=[.'])", lambda _: r"\&", text, flags=re.M)
