"""What the commands about the store itself have in common: the paths that they are given, and whom
they ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvixstore.errors import InvalidData, Unsupported

if TYPE_CHECKING:
    from tvixstore.nix import StorePath
    from tvixstore.upkeep import Upkeep

PathsArgument = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Store paths, or their base names.", show_default=False),
]

TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="A token with the right `admin`, if the daemon wants one.",
        show_default=False,
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Authorities that are believed in addition to the system's.",
        show_default=False,
    ),
]


def parse_paths(texts: Sequence[str]) -> list[StorePath]:
    """The store paths in the arguments; a wrong one is wrong usage."""
    from tvixstore.transfer import parse_store_path

    try:
        return [parse_store_path(text) for text in texts]
    except InvalidData as error:
        raise typer.BadParameter(str(error)) from None


@asynccontextmanager
async def open_upkeep(
    compose: Path | None, token_file: Path | None = None, ca_file: Path | None = None
) -> AsyncIterator[Upkeep]:
    """Of the daemon that runs on the file that is found, or of the composition in `compose`."""
    from tvixstore.cli.clients import Credentials, open_client
    from tvixstore.cli.places import default_place
    from tvixstore.errors import StateInUse
    from tvixstore.rpc.client import GrpcUpkeep

    place = default_place(compose)
    try:
        async with open_client(place, Credentials(token_file, None, ca_file)) as client:
            if client.peer is not None:
                yield GrpcUpkeep(client.peer)
            elif client.composition is not None and client.composition.upkeep is not None:
                yield client.composition.upkeep
            else:
                raise Unsupported(f"{place} keeps nothing at the [daemon] state")
    except StateInUse as error:
        reason = error.__cause__ or error
        raise StateInUse(f"{reason}, or leave out --compose to ask the daemon there") from error
