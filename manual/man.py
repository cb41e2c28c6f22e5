"""Man pages, in the macros of man(7) that groff and mandoc have in common."""

from __future__ import annotations

from manual import prose, roff
from manual.commands import Argument, Command, Option, Value
from manual.compose_page import NAME as COMPOSE
from manual.roff import escaped, head, marked, paragraphs, tagged, wrapped
from tvixstore.cli.examples import EXAMPLES


def render(command: Command, root: Command) -> str:
    """The page of `command`, for `share/man/man1`."""
    title = "-".join(command.words)
    sections = {
        "NAME": wrapped(rf"{escaped(title)} \- {escaped(_name_line(command))}"),
        "SYNOPSIS": _synopsis(command),
        "DESCRIPTION": paragraphs([*command.paragraphs, *prose.more_of(command)]),
        "COMMANDS": _commands(command),
        "ARGUMENTS": tagged((_metavar(each.value), each.help) for each in command.arguments),
        "OPTIONS": tagged((_names(each), _help(each)) for each in command.options),
        "EXIT STATUS": tagged((rf"\fB{code}\fR", text) for code, text in prose.exits_of(command)),
        "ENVIRONMENT": tagged(roff.bold(prose.environment_of(command))),
        "FILES": tagged(roff.italic(prose.files_of(command))),
        "EXAMPLES": _examples(command),
        "SEE ALSO": [_see_also(command, root)],
    }
    lines = head(title, 1, "the command line")
    for heading, body in sections.items():
        if body:
            lines += [f".SH {heading}", *body]
    return "\n".join(lines) + "\n"


def _name_line(command: Command) -> str:
    """One sentence at most, and plain: `apropos` and `whatis` print it."""
    summary = command.summary.split(". ")[0].replace("`", "")
    return summary[0].lower() + summary[1:]


def _synopsis(command: Command) -> list[str]:
    words = [rf"\fB{escaped(' '.join(command.words))}\fR"]
    words += [f"[{_option(each)}]" for each in command.options]
    words += [_argument(each) for each in command.arguments]
    if command.commands:
        words.append(r"\fICOMMAND\fR ...")
    # Hung; lines are broken between the options, never within one.
    return [".HP", *(word.replace(" ", r"\ ") for word in words)]


def _option(option: Option) -> str:
    names = "|".join(rf"\fB{escaped(name)}\fR" for name in option.names)
    return (
        names if option.value is None else f"{names} {_metavar(option.value)}{_dots(option.value)}"
    )


def _argument(argument: Argument) -> str:
    text = f"{_metavar(argument.value)}{_dots(argument.value)}"
    return text if argument.required else f"[{text}]"


def _dots(value: Value) -> str:
    return " ..." if value.repeated else ""


def _metavar(value: Value) -> str:
    return rf"\fI{escaped(value.metavar)}\fR"


def _names(option: Option) -> str:
    names = ", ".join(rf"\fB{escaped(name)}\fR" for name in option.names)
    return names if option.value is None else f"{names} {_metavar(option.value)}"


def _help(option: Option) -> str:
    return option.help if option.default is None else f"{option.help} Default: {option.default}."


def _commands(command: Command) -> list[str]:
    return tagged(
        (rf"\fB{escaped('-'.join(each.words))}\fR(1)", f"{each.summary}.")
        for each in command.commands
    )


def _examples(command: Command) -> list[str]:
    lines: list[str] = []
    for what, example in EXAMPLES.get(" ".join(command.words[1:]), ()):
        lines += [".PP", marked(f"{what}:"), *roff.example(example.splitlines())]
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
    names = [rf"\fB{escaped('-'.join(each.words))}\fR(1)" for each in near]
    if prose.finds_a_compose_file(command):
        names.append(rf"\fB{escaped(COMPOSE)}\fR(5)")
    return ",\n".join([*names, r"\fBnix\fR(1)"])
