"""The man page of compose files: what `docs/` says of them, and nothing besides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from manual import markdown, prose
from manual.roff import escaped, head, italic, tagged

DOCS = Path(__file__).parents[1] / "docs"
NAME: Final = "tvix-store-compose"

# What commands make of a file is told on their pages.
_ELSEWHERE: Final = ("Keys that later versions bring", "What a file becomes", "Mistakes")
_RELATED: Final = (
    *("tvix-store", "tvix-store-daemon"),
    *("tvix-store-compose-check", "tvix-store-compose-show"),
)


def render() -> str:
    """The page, for `share/man/man5`."""
    short = markdown.sections((DOCS / "configuration.md").read_text("utf-8"))
    long = (DOCS / "composition.md").read_text("utf-8")
    lines = [
        *head(NAME, 5, "docs/configuration.md and docs/composition.md"),
        *(".SH NAME", rf"{escaped(NAME)} \- the files that stores are composed by"),
        *(".SH SYNOPSIS", *_synopsis()),
        *(".SH DESCRIPTION", *markdown.render(_untitled(short.pop("")))),
        *_short(short),
        *(".SH THE LONG FORM", *markdown.render(_untitled(long))),
        *(".SH FILES", *tagged(italic(prose.FILES))),
        *(".SH SEE ALSO", ",\n".join(rf"\fB{escaped(name)}\fR(1)" for name in _RELATED)),
    ]
    return "\n".join(lines) + "\n"


def _synopsis() -> Iterator[str]:
    yield rf"\fI{escaped('$TVIXSTORE_COMPOSE')}\fR"
    for name, _ in prose.FILES:
        yield from (".br", rf"\fI{escaped(name)}\fR")


def _short(sections: dict[str, str]) -> Iterator[str]:
    for heading, text in sections.items():
        if not heading.startswith(_ELSEWHERE):
            # The name of a table is to be typed.
            yield f".SH {escaped(heading if heading.startswith('[') else heading.upper())}"
            yield from markdown.render(text)


def _untitled(text: str) -> str:
    return text.partition("\n")[2]
