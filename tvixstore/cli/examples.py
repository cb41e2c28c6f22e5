"""Examples of the commands, each with what it does: the end of `--help`, and of the man pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Final

_APP: Final = "/nix/store/jbwpvmf637qgh4y6sqxf7wzrc0bvhv9v-app-2.0"

# A row of what and how for each, by the words of the command.
EXAMPLES: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "daemon": [("Run what a compose file describes", "tvix-store daemon --compose office.toml")],
    "copy": [
        (
            "From a binary cache into the local daemon",
            f"tvix-store copy --from https://cache.nixos.org {_APP}",
        ),
        ("Onto a stick, for Nix", f"tvix-store copy --to file:///mnt/stick {_APP}"),
        (
            "All that this machine runs",
            (
                "nix path-info --json --recursive /run/current-system |\n"
                "    tvix-store copy --to grpc+http://office:8000 --closure-info -"
            ),
        ),
    ],
    "info": [
        ("How large it is, with all that it needs", f"tvix-store info -S {_APP}"),
        (
            "What a binary cache says of it",
            f"tvix-store info --from https://cache.nixos.org {_APP}",
        ),
    ],
    "import": [
        ("A folder, under a name of its own", "tvix-store import --name source ./checkout"),
        ("Into a composition, without a daemon", "tvix-store import --compose disk.toml *.tar.gz"),
    ],
    "nar-hash": [("In the form of Nix's older commands", "tvix-store nar-hash --base32 ./source")],
    "nar": [("Into a file", f"tvix-store nar {_APP} > app.nar")],
    "ls": [
        ("Everything in a folder of it", f"tvix-store ls -lR {_APP}/share"),
        (
            "How large its largest file is",
            (f"tvix-store ls -R --json {_APP} |\n    jq '[.. | objects | .size // empty] | max'"),
        ),
    ],
    "cat": [
        (
            "The first 512 bytes of a file",
            f"tvix-store cat --length 512 {_APP}/bin/app",
        )
    ],
    "extract": [("A folder of it", f"tvix-store extract {_APP}/share ./share")],
    "add-nar": [
        (
            "What was taken from a binary cache by hand",
            "tvix-store add-nar --narinfo app.narinfo app.nar.xz",
        ),
        (
            "What another store writes out",
            f"nix-store --dump {_APP} | tvix-store add-nar --path {_APP} -",
        ),
        (
            "Only if somebody who is trusted has signed it",
            (
                'tvix-store add-nar --public-keys "$(cat public.key)" \\\n'
                "    --narinfo app.narinfo app.nar.xz"
            ),
        ),
    ],
    "pin": [("With the reason", f'tvix-store pin --comment "release 2.0" {_APP}')],
    "unpin": [("Whatever was pinned for it", f"tvix-store unpin {_APP}")],
    "verify": [
        ("All that is kept, mended where it can be", "tvix-store verify --repair"),
        ("A path, with all that it is made of", f"tvix-store verify {_APP}"),
    ],
    "compose check": [("Before it is put in place", "tvix-store compose check office.toml")],
    "compose show": [("What the short form stands for", "tvix-store compose show office.toml")],
    "key generate": [
        (
            "A key for sign_with",
            "tvix-store key generate --out secret.key cache.example.org-1",
        )
    ],
    "key public": [("What clients have to trust", "tvix-store key public secret.key")],
}


def epilog(words: str) -> str | None:
    """The examples of a command, as typer's help wants them; `None` if there are none."""
    rows = EXAMPLES.get(words)
    if rows is None:
        return None
    return "\n\n".join(["Examples:", *(f"  {what}:\n{indent(how, '    ')}" for what, how in rows)])
