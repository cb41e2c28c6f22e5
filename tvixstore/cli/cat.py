"""`tvix-store cat`: a file in a store path."""

from __future__ import annotations

from typing import Annotated

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


def cat(
    path: InsideArgument,
    offset: Annotated[
        int, typer.Option(min=0, metavar="BYTES", help="Leave out so much at its beginning.")
    ] = 0,
    length: Annotated[
        int | None,
        typer.Option(min=0, metavar="BYTES", help="Write so much, at most.", show_default=False),
    ] = None,
    source: SourceOption = None,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Write a file in a store path to standard output; fetch no more than that needs."""
    from tvixstore.cli.pouring import pour
    from tvixstore.cli.running import run

    inside = parse_inside(path)
    place = store_place(source, compose)

    async def work() -> int:
        async with open_reader(place, token_file, ca_file) as (reader, pools):
            return await pour(await reader.open_file(inside, offset, length), pools)

    run(work)
