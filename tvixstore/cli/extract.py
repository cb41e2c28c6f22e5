"""`tvix-store extract`: a store path, or what is inside of one, onto disk."""

from __future__ import annotations

from pathlib import Path
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


def extract(
    path: InsideArgument,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="What it becomes; the folder around it has to be there."
        ),
    ],
    link: Annotated[
        bool, typer.Option("--link", help="Have equal files share their contents.")
    ] = False,
    source: SourceOption = None,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Put a store path on disk, with the modes that `nix-store --restore` gives.

    Nothing is written outside of DIR, nor over anything. What is there and right is left as it is:
    called again, an extraction that was broken off is finished.
    """
    from tvixstore.cli.running import run
    from tvixstore.cli.tree_progress import showing
    from tvixstore.filesystem import Extractor

    inside = parse_inside(path)
    place = store_place(source, compose)

    async def work() -> int:
        with showing("extracting", quiet=quiet) as on_progress:
            async with open_reader(place, token_file, ca_file) as (reader, pools):
                extractor = Extractor(reader.content, pools, link, on_progress)
                await extractor.put(await reader.find(inside), target)
        return 0

    run(work)
