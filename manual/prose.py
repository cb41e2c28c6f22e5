"""What the pages say beside the help of each command."""

from __future__ import annotations

from manual.commands import Command

_EXITS = (
    ("0", "Done."),
    ("1", "Failed, or refused: a file with mistakes, a store that takes no writes."),
    ("2", "Wrong usage."),
)
_STORE_EXITS = (
    ("3", "A path is not there."),
    (
        "4",
        (
            "Unknown: a daemon or a binary cache cannot be reached, does not know who asks, or "
            "could not say."
        ),
    ),
    ("5", "Corrupt: a hash that differs, a signature that is missing."),
)
_INTERRUPTED = (("130", "Interrupted, by SIGINT or SIGTERM; a second one ends it at once."),)
_UNREAD = (("141", "Nobody reads the output any more."),)

_LOCAL_DAEMON = (
    "Without `--compose`, it asks the daemon at the `[daemon] grpc` of the compose file that is "
    "found (see FILES). With it, it opens the composition itself, which no daemon may be running "
    "on."
)
_LEFT_OUT = (
    "Where no place is named, it is the daemon at the `[daemon] grpc` of the compose file that is "
    "found (see FILES), or with `--compose` the composition in that file, which no daemon may be "
    "running on."
)
_PLACES = (
    "A place is `grpc+http://HOST:PORT`, `grpc+https://HOST[:PORT]` or `grpc+unix:///PATH` for a "
    "daemon, or the path of a compose file, whose composition the command opens itself."
)
_CACHES = "`http://`, `https://` and `file:///FOLDER` name binary caches."

_MORE = {
    "": (
        (
            "What a store is made of stands in a compose file; without any, it is a proxy in front "
            "of cache.nixos.org. `tvix-store daemon` runs it; the other commands talk to that "
            "daemon, or work on a composition without one."
        ),
        "Results go to standard output, everything else to standard error.",
    ),
    "daemon": (
        (
            "It answers the HTTP protocol of Nix's binary caches at `[daemon] http`, gRPC at "
            "`[daemon] grpc`, and keeps its state in `[daemon] state`. SIGTERM has it finish what "
            "is under way, for `drain_timeout` at most; a second one ends it at once."
        ),
    ),
}

FILES = (
    ("./compose.toml", "The compose file, if there is one where the command is run."),
    ("/etc/tvixstore/compose.toml", "The compose file of the machine."),
)
_ENVIRONMENT = (
    (
        "TVIXSTORE_COMPOSE",
        (
            "The compose file, if none is named. It counts before those in FILES, whether it is "
            "there or not."
        ),
    ),
)
# Those that are for people who read the page; besides its parent and what is below it.
RELATED = {
    "daemon": ("compose", "check"),
    "copy": ("info", "import", "add-nar"),
    "info": ("copy", "ls", "explain"),
    "explain": ("info", "show"),
    "import": ("nar-hash", "extract", "add-nar", "copy"),
    "nar-hash": ("import", "nar"),
    "nar": ("add-nar", "extract", "nar-hash"),
    "ls": ("cat", "extract", "info"),
    "cat": ("ls", "extract"),
    "extract": ("import", "ls", "cat", "nar"),
    "add-nar": ("import", "nar", "copy"),
    "pin": ("unpin", "pins"),
    "unpin": ("pin", "pins"),
    "pins": ("pin", "unpin"),
    "compose check": ("show", "daemon"),
    "compose show": ("check", "daemon"),
    "key generate": ("public",),
    "key public": ("generate",),
}


def more_of(command: Command) -> tuple[str, ...]:
    """What is said after the paragraphs of its help."""
    said = _MORE.get(" ".join(command.words[1:]), ())
    options = {name for option in command.options for name in option.names}
    if options & {"--from", "--to"}:
        return (
            *said,
            f"{_PLACES} {_CACHES}" if "--netrc-file" in options else _PLACES,
            _LEFT_OUT,
        )
    if _opens(command) and command.words[1:] != ("daemon",):
        return (*said, _LOCAL_DAEMON)
    return said


def exits_of(command: Command) -> list[tuple[str, str]]:
    found = [*_EXITS]
    if command.words[1:] != ("daemon",) and (len(command.words) == 1 or _opens(command)):
        found += _STORE_EXITS
    return found + [*_INTERRUPTED, *(_UNREAD if command.name in ("nar", "ls", "cat") else ())]


def files_of(command: Command) -> tuple[tuple[str, str], ...]:
    return FILES if finds_a_compose_file(command) else ()


def environment_of(command: Command) -> tuple[tuple[str, str], ...]:
    return _ENVIRONMENT if finds_a_compose_file(command) else ()


def finds_a_compose_file(command: Command) -> bool:
    """Whether what it does depends on one."""
    return len(command.words) == 1 or "compose" in command.words or _opens(command)


def _opens(command: Command) -> bool:
    return any("--compose" in option.names for option in command.options)
