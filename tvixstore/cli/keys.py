"""`tvix-store key`: makes signing keys, and tells the public half that clients are to trust."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tvixstore.errors import InvalidData, StoreError

keys = typer.Typer(help="Make keys that sign what goes out of a store.", no_args_is_help=True)

_STANDARD = Path("-")
# More than any key file has.
_LONGEST = 4096


def _name(name: str) -> str:
    if not name or ":" in name or not name.isprintable() or any(map(str.isspace, name)):
        raise typer.BadParameter(
            "a key's name is printable, without colons and spaces: write one such as "
            "cache.example.org-1"
        )
    return name


@keys.command()
def generate(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            callback=_name,
            help="What clients will know the key by, such as cache.example.org-1.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where the secret key goes, for its owner's eyes alone; the public key is then "
            "printed. Without it, the secret key is printed.",
            show_default=False,
        ),
    ] = _STANDARD,
) -> None:
    """Make a secret key, for sign_with or `nix copy`; a file that is there is never replaced."""
    from tvixstore.nix import SecretKey

    key = SecretKey.generate(name)
    if out == _STANDARD:
        typer.echo(key.text)
        return
    _write_new(out, f"{key.text}\n".encode())
    typer.echo(str(key.public_key))


@keys.command()
def public(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A secret key; - or nothing is standard input.",
            show_default=False,
        ),
    ] = _STANDARD,
) -> None:
    """Print the public key of a secret one, as clients have it in trusted-public-keys."""
    from tvixstore.compose import load_key_file, parse_secret_key

    if file != _STANDARD:
        typer.echo(str(load_key_file(file).public_key))
        return
    try:
        typer.echo(str(parse_secret_key(sys.stdin.buffer.read(_LONGEST)).public_key))
    except InvalidData as error:
        raise InvalidData(f"standard input {error}") from None


def _write_new(path: Path, data: bytes) -> None:
    """Puts `data` where nothing is, durably and for this user alone, or leaves nothing there."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise StoreError(f"{path} exists, and keys are not replaced: name another file") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
