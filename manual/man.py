"""Man pages, in the macros of man(7) that groff and mandoc have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from textwrap import wrap

from manual import prose
from manual.commands import Argument, Command, Option, Value
from tvixstore import __version__
from tvixstore.cli.examples import EXAMPLES

# Of the text, not of the build: the same text makes the same page.
DATE = "2026-11-25"

_wrap = partial(wrap, width=78, break_long_words=False, break_on_hyphens=False)


def render(command: Command, root: Command) -> str:
    """The page of `command`, for `share/man/man1`."""
    title = "-".join(command.words)
    sections = {
        "NAME": _wrap(rf"{_escaped(title)} \- {_escaped(_name_line(command))}"),
        "SYNOPSIS": _synopsis(command),
        "DESCRIPTION": _paragraphs([*command.paragraphs, *prose.more_of(command)]),
        "COMMANDS": _commands(command),
        "ARGUMENTS": _tagged((_metavar(each.value), each.help) for each in command.arguments),
        "OPTIONS": _tagged((_names(each), _help(each)) for each in command.options),
        "EXIT STATUS": _tagged((rf"\fB{code}\fR", text) for code, text in prose.exits_of(command)),
        "ENVIRONMENT": _tagged(_bold(prose.environment_of(command))),
        "FILES": _tagged(_italic(prose.files_of(command))),
        "EXAMPLES": _examples(command),
        "SEE ALSO": [_see_also(command, root)],
    }
    lines = [
        r".\" Made from the command line by `make manual`.",
        f'.TH {_escaped(title.upper())} 1 {DATE} "tvixstore {__version__}" "tvixstore"',
        # Ragged, and nothing is hyphenated: much of it is to be typed.
        ".nh",
        ".ad l",
    ]
    for heading, body in sections.items():
        if body:
            lines += [f".SH {heading}", *body]
    return "\n".join(lines) + "\n"


def _name_line(command: Command) -> str:
    """One sentence at most, and plain: `apropos` and `whatis` print it."""
    summary = command.summary.split(". ")[0].replace("`", "")
    return summary[0].lower() + summary[1:]


def _synopsis(command: Command) -> list[str]:
    words = [rf"\fB{_escaped(' '.join(command.words))}\fR"]
    words += [f"[{_option(each)}]" for each in command.options]
    words += [_argument(each) for each in command.arguments]
    if command.commands:
        words.append(r"\fICOMMAND\fR ...")
    # Hung; lines are broken between the options, never within one.
    return [".HP", *(word.replace(" ", r"\ ") for word in words)]


def _option(option: Option) -> str:
    names = "|".join(rf"\fB{_escaped(name)}\fR" for name in option.names)
    return (
        names if option.value is None else f"{names} {_metavar(option.value)}{_dots(option.value)}"
    )


def _argument(argument: Argument) -> str:
    text = f"{_metavar(argument.value)}{_dots(argument.value)}"
    return text if argument.required else f"[{text}]"


def _dots(value: Value) -> str:
    return " ..." if value.repeated else ""


def _metavar(value: Value) -> str:
    return rf"\fI{_escaped(value.metavar)}\fR"


def _names(option: Option) -> str:
    names = ", ".join(rf"\fB{_escaped(name)}\fR" for name in option.names)
    return names if option.value is None else f"{names} {_metavar(option.value)}"


def _help(option: Option) -> str:
    return option.help if option.default is None else f"{option.help} Default: {option.default}."


def _commands(command: Command) -> list[str]:
    return _tagged(
        (rf"\fB{_escaped('-'.join(each.words))}\fR(1)", f"{each.summary}.")
        for each in command.commands
    )


def _examples(command: Command) -> list[str]:
    lines: list[str] = []
    for what, example in EXAMPLES.get(" ".join(command.words[1:]), ()):
        lines += [".PP", _marked(f"{what}:"), ".PP", ".RS 4", ".nf"]
        lines += [_line(line) for line in example.splitlines()]
        lines += [".fi", ".RE"]
    return lines[1:]


def _see_also(command: Command, root: Command) -> str:
    pages = [each for each in root.all() if each is not command]
    near = [
        each
        for each in pages
        if each is root
        or each in command.commands
        or command in each.commands
        or each.name in prose.RELATED.get(" ".join(command.words[1:]), ())
    ]
    names = [rf"\fB{_escaped('-'.join(each.words))}\fR(1)" for each in near]
    return ",\n".join([*names, r"\fBnix\fR(1)"])


def _tagged(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [line for tag, text in rows for line in (".TP", tag, _marked(text))]


def _bold(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((rf"\fB{_escaped(tag)}\fR", text) for tag, text in rows)


def _italic(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((rf"\fI{_escaped(tag)}\fR", text) for tag, text in rows)


def _paragraphs(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in (".PP", _marked(text))][1:]


def _marked(text: str) -> str:
    """Help for people in roff: what is in backticks is bold."""
    parts = text.split("`")
    marked = [
        rf"\fB{_escaped(part)}\fR" if index % 2 else _escaped(part)
        for index, part in enumerate(parts)
    ]
    # A sentence begins a line, and no line is long, as mandoc wants it.
    sentences = re.split(r"(?<=[.!?]) +(?=\S)", "".join(marked))
    return _line_start("\n".join(line for each in sentences for line in _wrap(each)))


def _line(text: str) -> str:
    return _line_start(_escaped(text))


def _line_start(text: str) -> str:
    """What begins with a dot or a quote would be a macro."""
    return re.sub(r"^(?=[.'])", lambda _: r"\&", text, flags=re.M)


def _escaped(text: str) -> str:
    escapes = {"\\": r"\e", "-": r"\-", "…": "...", "~": r"\(ti", "^": r"\(ha", "'": r"\(aq"}
    return "".join(escapes.get(character, character) for character in text)
