"""`tvix-store add-nar`: a NAR from a file becomes a store path."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.cli.copy import Sizes, parse_keys
from tvixstore.cli.storing import CaFileOption, TargetOption, TokenFileOption, store_place
from tvixstore.errors import InvalidData

if TYPE_CHECKING:
    from tvixstore.filesystem import Claims
    from tvixstore.nix import StorePath

_PIECE: Final = 256 << 10
# Longer than any narinfo may be.
_MOST_NARINFO: Final = 4 << 20


def add_nar(
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="A NAR, compressed or not; - is standard input.")
    ],
    narinfo: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its narinfo, which says its path, references, deriver and signatures.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="The store path that it is the NAR of.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to call it, if its store path is to follow from its content.",
            show_default=False,
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--references",
            metavar="PATH",
            help="Store paths that it refers to; several, by spaces or again.",
            show_default=False,
        ),
    ] = None,
    deriver: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The derivation that made it.", show_default=False),
    ] = None,
    public_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--public-keys",
            metavar="NAME:KEY",
            help="Keys, one of which has to have signed it; several, by spaces or again.",
            show_default=False,
        ),
    ] = None,
    target: TargetOption = None,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    directory_sizes: Annotated[
        Sizes,
        typer.Option(
            help="How the daemon counts the sizes of Directories: tvix's and snix's want `doubled`."
        ),
    ] = Sizes.documented,
) -> None:
    """Take a NAR into the store; print its store path.

    It is held against its narinfo, if there is one, and stored if it is what that says.
    """
    if sum(each is not None for each in (narinfo, path, name)) != 1:
        raise typer.BadParameter("name one of --narinfo, --path and --name: a NAR has none of that")
    if narinfo is not None and (references or deriver):
        raise typer.BadParameter("--narinfo says what it refers to, and its deriver")
    claims = _claims(narinfo, path, name, references or [], deriver)
    keys = parse_keys(public_keys or ())
    place = store_place(target, compose)
    source = _open(file)
    from tvixstore.castore import SizeRule
    from tvixstore.cli.clients import Credentials, open_client, open_workshop
    from tvixstore.cli.running import run
    from tvixstore.filesystem import NarAdder
    from tvixstore.nix import KeyRing
    from tvixstore.transfer import Trust

    async def work() -> int:
        async with (
            open_workshop() as workshop,
            open_client(place, Credentials(token_file, None, ca_file)) as client,
        ):
            wanted = SizeRule(directory_sizes.value)
            sizes = wanted if client.composition is None else client.store.sizes
            adder = NarAdder(
                *(client.content, client.store.path_infos, client.pools, workshop.folder, sizes),
                trust=Trust(KeyRing(keys)) if keys else Trust(),
            )
            with source:
                async with aclosing(_read(source, file)) as pieces:
                    info = await adder.add(pieces, file, claims)
        typer.echo(info.store_path)
        return 0

    run(work)


def _open(name: str) -> FileIO:
    """Without a buffer: it can be closed then while a thread still reads from it."""
    try:
        return FileIO(0, closefd=False) if name == "-" else FileIO(name)
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}") from None


async def _read(source: FileIO, name: str) -> AsyncGenerator[bytes, None]:
    from tvixstore.pools import Pool

    # In a thread of its own, which nobody waits for: a pipe may be silent for ever.
    reading = Pool("input", 1)
    try:
        while data := await reading.abandon(source.read, _PIECE):
            yield data
    except OSError as error:
        raise InvalidData(f"{name} cannot be read: {error.strerror}") from None
    finally:
        reading.close(wait=False)


def _claims(
    narinfo: Path | None,
    path: str | None,
    name: str | None,
    references: list[str],
    deriver: str | None,
) -> Claims:
    """What the options say of it. Raises `BadParameter`."""
    from tvixstore.filesystem import Claims
    from tvixstore.nix import NarInfo
    from tvixstore.transfer import parse_store_path

    try:
        if narinfo is not None:
            with narinfo.open("rb") as file:
                return Claims.of(NarInfo.parse(file.read(_MOST_NARINFO).decode()))
        return Claims(
            path=None if path is None else parse_store_path(path),
            name=name,
            references=_sorted(
                [parse_store_path(each) for text in references for each in text.split()]
            ),
            deriver=None if deriver is None else parse_store_path(deriver),
        )
    except OSError as error:
        raise typer.BadParameter(f"{narinfo} cannot be read: {error.strerror}") from None
    except (InvalidData, UnicodeDecodeError) as error:
        raise typer.BadParameter(str(error)) from None


def _sorted(paths: list[StorePath]) -> tuple[StorePath, ...]:
    return tuple(sorted(set(paths), key=lambda each: each.order()))
