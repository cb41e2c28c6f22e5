"""What the commands for trees have in common: which store they work on, and who they are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvixstore.errors import ConfigError

if TYPE_CHECKING:
    from tvixstore.cli.places import ComposePlace, DaemonPlace

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
            f"{place} is a binary cache, which keeps no trees: name a daemon (grpc+…) or a "
            "compose file, and `copy` from there"
        )
    return place
