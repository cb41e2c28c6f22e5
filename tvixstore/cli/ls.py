"""`tvix-store ls`: what is in a store path."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Final

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

# Written in one go.
_PARTS: Final = 10_000


def ls(
    path: InsideArgument,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Also show modes, sizes, and where links lead.")
    ] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", help="Also list what is in folders.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON document, as `nix store ls --json` does.")
    ] = False,
    source: SourceOption = None,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """List what is in a store path, as `nix store ls` does; fetch no file of it."""
    from tvixstore.cli.listed import Document, Lines
    from tvixstore.cli.pouring import write_out
    from tvixstore.cli.running import BROKEN_PIPE, run

    inside = parse_inside(path)
    place = store_place(source, compose)
    listing = Document(recursive=recursive) if as_json else Lines(inside, long=long)

    async def work() -> int:
        parts: list[bytes] = []
        async with open_reader(place, token_file, ca_file) as (reader, pools):
            async with aclosing(reader.list(inside, recursive=recursive)) as found:
                try:
                    async for name, node in found:
                        parts.append(listing.add(name, node))
                        if len(parts) >= _PARTS:
                            await pools.files.run(write_out, parts)
                            parts = []
                    await pools.files.run(write_out, [*parts, listing.finish()])
                except BrokenPipeError:
                    return BROKEN_PIPE
        return 0

    run(work)
