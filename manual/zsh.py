"""Completion for zsh: a function a command, by zsh's own `_arguments`."""

from __future__ import annotations

from manual.commands import Argument, Command, Kind, Option, Value

_HEAD = """#compdef tvix-store

# Completion of tvix-store for zsh. Made from the command line by `make manual`.
"""

_TAIL = """
# Found in $fpath, this file is the function's first call; read by `source`, it only defines it.
if [[ ${funcstack[1]} == _tvix-store ]]; then
    _tvix-store "$@"
else
    compdef _tvix-store tvix-store
fi
"""

_GROUP = """
{function}() {{
    local curcontext="$curcontext" state state_descr line
    typeset -A opt_args
    local -i result=1
    local -a commands=(
{commands}
    )
    _arguments -S -C \\
{options}
        '1: :->command' '*:: :->rest' && result=0
    case $state in
        command) _describe -t commands command commands && result=0 ;;
        rest)
            case $line[1] in
{calls}
            esac
            ;;
    esac
    return result
}}
"""

_LEAF = """
{function}() {{
    _arguments -s -S \\
{specs}
}}
"""


def render(root: Command) -> str:
    """The script, for `share/zsh/site-functions/_tvix-store`."""
    return _HEAD + "".join(_function(each) for each in reversed(list(root.all()))) + _TAIL


def _function(command: Command) -> str:
    options = [spec for option in command.options for spec in _option(option)]
    if not command.commands:
        arguments = [_argument(*each) for each in enumerate(command.arguments, 1)]
        specs = " \\\n".join(f"        {spec}" for spec in [*options, *arguments])
        return _LEAF.format(function=_name(command), specs=specs)
    below = [f"        {_quoted(f'{each.name}:{each.summary}')}" for each in command.commands]
    calls = [
        f"                {each.name}) {_name(each)} && result=0 ;;" for each in command.commands
    ]
    return _GROUP.format(
        function=_name(command),
        commands="\n".join(below),
        options="\n".join(f"        {spec} \\" for spec in options),
        calls="\n".join(calls),
    )


def _option(option: Option) -> list[str]:
    value = option.value
    many = "*" if value is not None and value.repeated else ""
    others = "" if many else f"({' '.join(option.names)})"
    specs = []
    for name in option.names:
        equals = "=" if value is not None and name.startswith("--") else ""
        taken = "" if value is None else f":{_escaped(value.metavar)}:{_action(value)}"
        specs.append(
            _quoted(f"{others if len(option.names) > 1 else ''}{many}{name}{equals}")
            + _quoted(f"[{_escaped(option.help.rstrip('.'))}]{taken}")
        )
    return specs


def _argument(index: int, argument: Argument) -> str:
    where = "*" if argument.value.repeated else f"{index}"
    # A second colon: it can be left out.
    colons = ":" if argument.required or argument.value.repeated else "::"
    return _quoted(f"{where}{colons}{_escaped(argument.value.metavar)}:{_action(argument.value)}")


def _action(value: Value) -> str:
    match value.kind:
        case Kind.FILES:
            return "_files"
        case Kind.FOLDERS:
            return "_files -/"
        case Kind.CHOICES:
            return f"({' '.join(value.choices)})"
        case Kind.NOTHING:
            # A space: only the message, which says what is to be there.
            return " "


def _name(command: Command) -> str:
    return "_" + "-".join(command.words)


def _escaped(text: str) -> str:
    for special in "\\[]:":
        text = text.replace(special, f"\\{special}")
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
