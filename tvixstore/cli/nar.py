"""`tvix-store nar`: the NAR of a store path."""

from __future__ import annotations

import sys

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.cli.storing import (
    CaFileOption,
    InsideArgument,
    SourceOption,
    TokenFileOption,
    open_reader,
    parse_inside,
    store_place,
)


def nar(
    path: InsideArgument,
    source: SourceOption = None,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Write the NAR of a store path to standard output, as `nix-store --dump` does."""
    if sys.stdout.isatty():
        raise typer.BadParameter("a NAR is nothing for a terminal: write it to a file or a pipe")
    from tvixstore.cli.pouring import pour
    from tvixstore.cli.running import run

    inside = parse_inside(path)
    place = store_place(source, compose)

    async def work() -> int:
        async with open_reader(place, token_file, ca_file) as (reader, pools):
            return await pour(await reader.open_nar(inside), pools)

    run(work)
