"""Pages of `docs/` in roff: as much of Markdown as those have that become man pages.

Headings, paragraphs, lists, tables, and text to be kept as it is. What a table has in its first
column is what people look for, so each row becomes a tagged paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manual.roff import escaped, example, marked

_LINK = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")
_STRONG = re.compile(r"\*\*([^*]+)\*\*|(?<![\w*])\*([^*\s][^*]*)\*")
_ITEM = re.compile(r"(-|\d+\.) +(.*)", re.S)
_CELLS = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"\|[-| ]+\|")


def sections(text: str, level: int = 2) -> dict[str, str]:
    """What stands below each heading of `level`, and as "" what is before the first one."""
    parts = re.split(rf"^{'#' * level} +(.+)\n", text, flags=re.M)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def render(text: str) -> list[str]:
    """The lines for `text`, which is to stand below a heading; those in it are of subsections."""
    lines: list[str] = []
    for block in _blocks(text):
        rendered = _rendered(block)
        # What follows a heading is a paragraph by itself.
        begins = not lines or lines[-1].startswith(".SS")
        lines += rendered[1:] if begins and rendered[0] == ".PP" else rendered
    return lines


def _blocks(text: str) -> Iterator[str]:
    """What blank lines divide, fenced text in one."""
    for index, part in enumerate(re.split(r"^(```.*?^```)$", text, flags=re.M | re.S)):
        if index % 2:
            yield part
            continue
        for block in re.split(r"\n\s*\n", part):
            if block.strip() and not block.startswith("<!--"):
                yield block.strip("\n")


def _rendered(block: str) -> list[str]:
    if block.startswith("```"):
        return example(block.splitlines()[1:-1])
    if block.startswith("    "):
        return example(line.removeprefix("    ") for line in block.splitlines())
    if block.startswith("#"):
        return [f".SS {escaped(_plain(block.lstrip('# ')).replace('`', ''))}"]
    if block.startswith("|"):
        return list(_table(block.splitlines()))
    if _ITEM.match(block):
        return list(_list(block))
    return [".PP", marked(_plain(" ".join(block.split())))]


def _list(block: str) -> Iterator[str]:
    for item in re.split(r"\n(?=- |\d+\. )", block):
        match = _ITEM.fullmatch(item)
        assert match is not None
        mark = r"\(bu" if match[1] == "-" else escaped(match[1])
        yield from (f".IP {mark} 4", marked(_plain(" ".join(match[2].split()))))


def _table(rows: list[str]) -> Iterator[str]:
    headings, *bodies = [
        [_plain(cell.strip()) for cell in _CELLS.split(row)[1:-1]]
        for row in rows
        if not _RULE.fullmatch(row)
    ]
    for tag, *cells in bodies:
        *between, last = zip(headings[1:], cells, strict=True)
        told = [_sentence(heading, cell) for heading, cell in between if cell]
        text = last[1]
        if told:
            text = text[:1].upper() + text[1:]
        told += [_sentence("", text)] if text else []
        yield from (".TP", marked(tag), marked(" ".join(told)) or r"\&")


def _sentence(heading: str, text: str) -> str:
    said = f"{heading.capitalize()}: {text}" if heading else text
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _plain(text: str) -> str:
    """Without links, which lead nowhere on paper; what is stressed is bold."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = _STRONG.sub(lambda match: f"`{match[1] or match[2]}`", parts[index])
    return _LINK.sub(lambda match: match[1], "`".join(parts))
