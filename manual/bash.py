"""Completion for bash: one function, which knows all commands and starts none.

It needs nothing of the package bash-completion. Files are left to readline, which knows about
quotes and `~`; bash before 4 cannot be told that there are to be none, and offers them.
"""

from __future__ import annotations

from manual.commands import Argument, Command, Kind, Option, Value

_SCRIPT = r"""# Completion of tvix-store for bash. Made from the command line by `make manual`.

# Sets `value` to what the option $2 of the command $1 takes, or to nothing for a flag.
_tvix_store_value() {
    case "$1:$2" in
%(values)s
        *) value= ;;
    esac
}

_tvix_store() {
    local current=${COMP_WORDS[COMP_CWORD]} command= pending= ended= joined= value= word
    local words= options= arguments=
    local -i index count=0
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ $word == [:=]* ]]; then
            # Of --option=value and scheme://host, bash makes three words.
            joined=1
        elif [[ -n $joined || -n $pending ]]; then
            joined= pending=
        elif [[ -n $ended ]]; then
            count+=1
        elif [[ $word == "--" ]]; then
            ended=1
        elif [[ $word == -?* ]]; then
            _tvix_store_value "$command" "$word"
            pending=$value
        else
            case "$command:$word" in
%(moves)s
                *) count+=1 ;;
            esac
        fi
    done
    if [[ $current == [:=]* ]]; then
        joined=1 current=
    fi
    case "$command" in
%(commands)s
    esac
    if [[ -n $pending ]]; then
        words=$pending
    elif [[ -n $joined ]]; then
        words=@nothing
    elif [[ -z $ended && $current == -* ]]; then
        words=$options
    elif [[ -n $arguments ]]; then
        # The last one stands for all that follow.
        for word in $arguments; do
            words=$word
            ((count-- > 0)) || break
        done
    fi
    case "$words" in
        @files) return 0 ;;
        @folders)
            compopt +o default -o dirnames 2>/dev/null
            return 0
            ;;
    esac
    compopt +o default 2>/dev/null
    [[ $words == @nothing ]] || COMPREPLY=($(compgen -W "$words" -- "$current"))
    return 0
}

complete -o default -F _tvix_store tvix-store
"""


def render(root: Command) -> str:
    """The script, for `share/bash-completion/completions/tvix-store`."""
    commands = list(root.all())
    values = [
        f"{_pattern(command, option)}) value={_quoted(_offered(option.value))} ;;"
        for command in commands
        for option in command.options
        if option.value is not None
    ]
    moves = [
        f'"{_key(command)}:{below.name}") command="{_key(below)}" ;;'
        for command in commands
        for below in command.commands
    ]
    cases = [line for command in commands for line in _case(command)]
    return _SCRIPT % {
        "values": _indented(values, 8),
        "moves": _indented(moves, 16),
        "commands": _indented(cases, 8),
    }


def _case(command: Command) -> list[str]:
    options = " ".join(name for option in command.options for name in option.names)
    lines = [f'"{_key(command)}")', f'    options="{options}"']
    if command.commands:
        lines.append(f'    words="{" ".join(each.name for each in command.commands)}"')
    elif arguments := _arguments(command.arguments):
        lines.append(f'    arguments="{arguments}"')
    else:
        lines.append('    arguments="@nothing"')
    return [*lines, "    ;;"]


def _arguments(arguments: tuple[Argument, ...]) -> str:
    kinds = [_offered(each.value) for each in arguments]
    if arguments and not arguments[-1].value.repeated:
        kinds.append("@nothing")
    return " ".join(kinds)


def _offered(value: Value) -> str:
    return " ".join(value.choices) if value.kind is Kind.CHOICES else f"@{value.kind}"


def _key(command: Command) -> str:
    return " ".join(command.words[1:])


def _pattern(command: Command, option: Option) -> str:
    return " | ".join(f'"{_key(command)}:{name}"' for name in option.names)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _indented(lines: list[str], spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in lines)
