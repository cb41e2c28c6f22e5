"""Completion for fish: a line for each thing that can be offered, and where."""

from __future__ import annotations

from collections.abc import Iterator

from manual.commands import Argument, Command, Kind, Option, Value

_HEAD = """# Completion of tvix-store for fish. Made from the command line by `make manual`.

# Whether the words before the cursor name the command that the arguments name.
function __tvix_store_at
    set -l words (commandline -opc)
    set -e words[1]
    set -l command
    for word in $words
        # Options of commands that have commands take no values.
        string match -q -- '-*' $word; and continue
        set -a command $word
        contains -- "$command" {groups}; or break
    end
    test "$command" = "$argv"
end

complete -c tvix-store -f
"""


def render(root: Command) -> str:
    """The script, for `share/fish/vendor_completions.d/tvix-store.fish`."""
    groups = " ".join(each.name for each in root.commands if each.commands)
    lines = [line for command in root.all() for line in _lines(command)]
    return _HEAD.format(groups=groups) + "\n".join(lines) + "\n"


def _lines(command: Command) -> Iterator[str]:
    where = (
        f"complete -c tvix-store -n {_quoted(' '.join(('__tvix_store_at', *command.words[1:])))}"
    )
    yield ""
    for below in command.commands:
        yield f"{where} -a {below.name} -d {_quoted(below.summary)}"
    for option in command.options:
        yield from (f"{where} {rest}" for rest in _option(option))
    yield from (f"{where} {offered}" for offered in _arguments(command.arguments))


def _option(option: Option) -> Iterator[str]:
    told = f"-d {_quoted(option.help.rstrip('.'))}"
    taken = "" if option.value is None else f" {_taken(option.value)}"
    *names, last = [_flag(name) for name in option.names]
    if any(name.startswith("--no-") for name in option.names[1:]):
        yield f"{' '.join(names)} {told}"
        yield f"{last} {told}"
        return
    yield f"{' '.join([*names, last])}{taken} {told}"


def _arguments(arguments: tuple[Argument, ...]) -> Iterator[str]:
    """Fish does not count them: it offers what one of them can be."""
    for kind in dict.fromkeys(each.value.kind for each in arguments):
        if kind is Kind.FILES:
            yield "-F"
        elif kind is Kind.FOLDERS and len(arguments) == 1:
            yield "-a '(__fish_complete_directories)'"


def _taken(value: Value) -> str:
    match value.kind:
        case Kind.FILES:
            return "-r -F"
        case Kind.FOLDERS:
            return "-x -a '(__fish_complete_directories)'"
        case Kind.CHOICES:
            return f"-x -a {_quoted(' '.join(value.choices))}"
        case Kind.NOTHING:
            return "-x"


def _flag(name: str) -> str:
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
