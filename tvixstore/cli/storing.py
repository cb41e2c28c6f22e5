"""What the commands for trees have in common: which store they work on, and who they are there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvixstore.cli.copy import PLACE
from tvixstore.errors import ConfigError, InvalidData

if TYPE_CHECKING:
    from tvixstore.cli.places import ComposePlace, DaemonPlace
    from tvixstore.filesystem import Inside, TreeReader
    from tvixstore.pools import Pools

SourceOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar=PLACE,
        help="Where from: a daemon's URL or a compose file. Left out: the local daemon.",
        show_default=False,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar=PLACE,
        help="Where to: a daemon's URL or a compose file. Left out: the local daemon.",
        show_default=False,
    ),
]
InsideArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH[/INSIDE]", help="A store path, or its base name, and what is inside of it."
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="A token, if the daemon wants one.",
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


def store_place(named: str | None, compose: Path | None) -> DaemonPlace | ComposePlace:
    """The store that is `named`, the composition in `compose`, or the local daemon.

    Raises `ConfigError` for a binary cache: that keeps NARs, and no trees.
    """
    from tvixstore.cli.places import CachePlace, default_place, parse_place

    if named is None:
        return default_place(compose)
    if compose is not None:
        raise typer.BadParameter("--compose and a place both say which store: name one")
    place = parse_place(named)
    if isinstance(place, CachePlace):
        raise ConfigError(
            f"{place} is a binary cache, which keeps NARs and no trees: name a daemon (grpc+…) or "
            "a compose file; `copy` goes from and to binary caches"
        )
    return place


def parse_inside(text: str) -> Inside:
    """What an argument names; a wrong one is wrong usage."""
    from tvixstore.filesystem import Inside

    try:
        return Inside.parse(text)
    except InvalidData as error:
        raise typer.BadParameter(str(error)) from None


@asynccontextmanager
async def open_reader(
    place: DaemonPlace | ComposePlace, token_file: Path | None, ca_file: Path | None
) -> AsyncIterator[tuple[TreeReader, Pools]]:
    """What looks into the paths there, and the threads to go with it."""
    from tvixstore.cli.clients import Credentials, open_client
    from tvixstore.filesystem import TreeReader

    async with open_client(place, Credentials(token_file, None, ca_file)) as client:
        yield TreeReader(client.store.path_infos, client.content), client.pools
