"""`tvix-store pin`, `unpin` and `pins`: paths that eviction has to leave."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvixstore.cli.app import PROGRAM, ComposeOption
from tvixstore.cli.keeping import (
    CaFileOption,
    PathsArgument,
    TokenFileOption,
    open_upkeep,
    parse_paths,
)

if TYPE_CHECKING:
    from tvixstore.nix import StorePath
    from tvixstore.upkeep import Pinned, Upkeep


def pin(
    paths: PathsArgument,
    comment: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Why, for whoever reads `pins`.", show_default=False),
    ] = None,
    no_fetch: Annotated[
        bool, typer.Option("--no-fetch", help="Do not fetch what is not here yet.")
    ] = False,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Keep store paths, and all that they refer to, from eviction."""
    from tvixstore.cli.running import run
    from tvixstore.errors import InvalidData
    from tvixstore.pathinfo import Pin

    wanted = parse_paths(paths)
    try:
        # The daemon would say the same of each.
        Pin(wanted[0], 0, comment or "")
    except InvalidData as error:
        raise typer.BadParameter(str(error)) from None

    async def work() -> int:
        async with open_upkeep(compose, token_file, ca_file) as upkeep:
            return await _pin(upkeep, wanted, comment, fetch=not no_fetch)

    run(work)


def unpin(
    paths: PathsArgument,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Let eviction have store paths again."""
    from tvixstore.cli.running import run

    wanted = parse_paths(paths)

    async def work() -> int:
        async with open_upkeep(compose, token_file, ca_file) as upkeep:
            return await _unpin(upkeep, wanted)

    run(work)


def pins(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """List what is pinned: since when, with how much, and why."""
    from tvixstore.cli.running import run

    async def work() -> int:
        async with open_upkeep(compose, token_file, ca_file) as upkeep:
            return await _list(upkeep, as_json=as_json)

    run(work)


async def _pin(upkeep: Upkeep, paths: list[StorePath], comment: str | None, *, fetch: bool) -> int:
    from tvixstore.cli.running import ABSENT, say
    from tvixstore.errors import AbsentPath
    from tvixstore.upkeep import PinRequest

    code = 0
    for path in paths:
        try:
            pinned = await upkeep.pin(PinRequest(path, comment, fetch))
        except AbsentPath as error:
            say(error)
            code = ABSENT
            continue
        if pinned is None:
            where = "here, nor anywhere that is asked" if fetch else "here"
            typer.echo(f"{PROGRAM}: {path} is not {where}", err=True)
            code = ABSENT
            continue
        typer.echo(f"pinned {path}: {_closure(pinned)}")
        for missing in pinned.missing:
            typer.echo(f"{PROGRAM}: {missing}, which it needs, is not here", err=True)
    return code


async def _unpin(upkeep: Upkeep, paths: list[StorePath]) -> int:
    from tvixstore.cli.running import ABSENT

    code = 0
    for path in paths:
        if await upkeep.unpin(path):
            typer.echo(f"unpinned {path}")
        else:
            typer.echo(f"{PROGRAM}: {path} was not pinned", err=True)
            code = ABSENT
    return code


async def _list(upkeep: Upkeep, *, as_json: bool) -> int:
    from contextlib import aclosing

    told: list[dict[str, Any]] = []
    async with aclosing(upkeep.pins()) as found:
        async for pinned in found:
            if as_json:
                told.append(_told(pinned))
                continue
            since = datetime.fromtimestamp(pinned.pin.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            comment = f"  {pinned.pin.comment}" if pinned.pin.comment else ""
            typer.echo(f"{pinned.pin.store_path}  {since}  {_closure(pinned)}{comment}")
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
    return 0


def _closure(pinned: Pinned) -> str:
    from tvixstore.cli.progress import human

    text = f"{pinned.paths} path{'' if pinned.paths == 1 else 's'}, {human(pinned.nar_size)}"
    if pinned.fetched:
        text += f", {pinned.fetched} fetched"
    if pinned.missing:
        text += f", {len(pinned.missing)} missing"
    return text


def _told(pinned: Pinned) -> dict[str, Any]:
    return {
        "path": str(pinned.pin.store_path),
        "since": pinned.pin.since,
        "comment": pinned.pin.comment,
        "closure_paths": pinned.paths,
        "closure_size": pinned.nar_size,
        "missing": [str(path) for path in pinned.missing],
    }
