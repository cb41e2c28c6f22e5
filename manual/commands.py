"""The commands as plain values, which pages and scripts are made from.

What typer builds is read once, here: names, help and metavars, which have stayed as they are from
version to version; the types are those of the functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.main import get_command

from tvixstore.cli.app import PROGRAM, app


class Kind(StrEnum):
    """What shells offer for a value."""

    FILES = "files"
    FOLDERS = "folders"
    CHOICES = "choices"
    NOTHING = "nothing"


# What is not here is nothing that a shell knows of. Store paths are files where they are mounted.
KINDS = {
    "DIR": Kind.FOLDERS,
    "FILE": Kind.FILES,
    "FILE|-": Kind.FILES,
    "PATH": Kind.FILES,
    "PATH[/INSIDE]": Kind.FILES,
    "URL|FILE": Kind.FILES,
}


@dataclass(frozen=True, slots=True)
class Value:
    """What an option takes, or an argument is."""

    metavar: str
    kind: Kind
    choices: tuple[str, ...] = ()
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """`value` is `None` if it is a flag."""

    names: tuple[str, ...]
    help: str
    value: Value | None = None
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    value: Value
    help: str
    required: bool


@dataclass(frozen=True, slots=True)
class Command:
    """One command, and those below it."""

    words: tuple[str, ...]
    paragraphs: tuple[str, ...]
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]

    @property
    def name(self) -> str:
        return self.words[-1]

    @property
    def summary(self) -> str:
        """One line without a full stop."""
        return self.paragraphs[0].rstrip(".")

    def all(self) -> Iterator[Command]:
        yield self
        for command in self.commands:
            yield from command.all()


def read_commands() -> Command:
    """The whole command line."""
    return _command(get_command(app), (PROGRAM,))


def _command(command: Any, words: tuple[str, ...], above: typer.Context | None = None) -> Command:
    context = typer.Context(command, info_name=words[-1], parent=above, **command.context_settings)
    parameters = [each for each in command.get_params(context) if not each.hidden]
    hints = get_type_hints(command.callback) if command.callback is not None else {}
    below = getattr(command, "commands", {})
    return Command(
        words,
        tuple(" ".join(part.split()) for part in (command.help or "").split("\n\n")),
        tuple(_option(each, hints) for each in parameters if each.param_type_name == "option"),
        tuple(_argument(each, hints) for each in parameters if each.param_type_name == "argument"),
        tuple(
            _command(each, (*words, name), context)
            for name, each in below.items()
            if not each.hidden
        ),
    )


def _option(option: Any, hints: dict[str, Any]) -> Option:
    # "-h" before "--help", and "--no-" last.
    names = (*sorted(option.opts, key=len), *option.secondary_opts)
    help = option.help or ""
    if option.is_flag:
        return Option(names, help)
    default = option.default
    shown = None if default is None or option.show_default is False else default
    if isinstance(shown, Enum):
        shown = shown.value
    value = _value(option, hints, repeated=option.multiple)
    return Option(names, help, value, None if shown is None else str(shown))


def _argument(argument: Any, hints: dict[str, Any]) -> Argument:
    value = _value(argument, hints, repeated=argument.nargs == -1)
    return Argument(value, argument.help or "", argument.required)


def _value(parameter: Any, hints: dict[str, Any], *, repeated: bool) -> Value:
    kind = _plain(hints.get(parameter.name))
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = tuple(str(each.value) for each in kind)
        return Value(parameter.metavar or "|".join(choices), Kind.CHOICES, choices, repeated)
    metavar = parameter.metavar or parameter.name.upper()
    return Value(metavar, KINDS.get(metavar, Kind.NOTHING), (), repeated)


def _plain(hint: Any) -> Any:
    """The type of one value: `int` of `list[int] | None`."""
    if get_origin(hint) in (Union, UnionType, list):
        return _plain(next(each for each in get_args(hint) if each is not type(None)))
    return hint
