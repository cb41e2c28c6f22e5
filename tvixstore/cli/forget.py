"""`tvix-store forget-absences`: what was absent is asked for anew."""

from __future__ import annotations

from typing import Annotated

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.cli.keeping import CaFileOption, TokenFileOption
from tvixstore.errors import InvalidData, Unsupported


def forget_absences(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Store paths, base names or hashes; else all.",
            show_default=False,
        ),
    ] = None,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Ask anew for what was absent: it has just been put elsewhere."""
    from tvixstore.cli.clients import Credentials, open_client
    from tvixstore.cli.places import default_place
    from tvixstore.cli.running import run
    from tvixstore.rpc.client.admin import forget_absences as ask
    from tvixstore.rpc.client.call import Unimplemented
    from tvixstore.transfer import parse_wanted

    try:
        path_hashes = [parse_wanted(path).hash for path in paths or ()]
    except InvalidData as error:
        raise typer.BadParameter(str(error)) from None
    place = default_place(compose)

    async def work() -> int:
        async with open_client(place, Credentials(token_file, None, ca_file)) as client:
            if client.peer is None:
                assert client.composition is not None
                count = await client.composition.forget_absences(path_hashes)
            else:
                try:
                    count = await ask(client.peer, path_hashes)
                except Unimplemented as error:
                    raise Unsupported(f"{place} is no daemon that forgets on demand") from error
        typer.echo(f"forgot {count} {'absence' if count == 1 else 'absences'}")
        return 0

    run(work)
