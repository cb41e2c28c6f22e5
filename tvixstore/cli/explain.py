"""`tvix-store explain`: why the answer about a store path was what it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvixstore.cli.app import FAILED, PROGRAM, ComposeOption
from tvixstore.errors import InvalidData, Unsupported

if TYPE_CHECKING:
    from tvixstore.cli.clients import Credentials
    from tvixstore.cli.places import ComposePlace, DaemonPlace
    from tvixstore.transfer import Wanted

Document = dict[str, Any]


def explain(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A store path, base name or hash.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Also look it up now, without fetching its NAR.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also nodes that only passed a call on.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all there is.")] = False,
    compose: ComposeOption = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A token with the right `read`.", show_default=False),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Authorities beside the system's.", show_default=False),
    ] = None,
) -> None:
    """Say why the last answers about a store path were what they were."""
    from tvixstore.cli.clients import Credentials
    from tvixstore.cli.places import default_place
    from tvixstore.cli.running import run
    from tvixstore.transfer import parse_wanted

    try:
        wanted = parse_wanted(path)
    except InvalidData as error:
        raise typer.BadParameter(str(error)) from None
    place = default_place(compose)
    credentials = Credentials(token_file, None, ca_file)

    async def tell() -> int:
        document = await _document(place, credentials, wanted, dry_run=dry_run, quiet=as_json)
        if as_json:
            typer.echo(json.dumps(document, ensure_ascii=False))
        else:
            from tvixstore.cli.explained import show

            show(document, everything=everything, styled=sys.stdout.isatty())
        return _exit_code(document)

    run(tell)


async def _document(
    place: DaemonPlace | ComposePlace,
    credentials: Credentials,
    wanted: Wanted,
    *,
    dry_run: bool,
    quiet: bool,
) -> Document:
    """What is told of the path; where nothing is, how a lookup goes now."""
    from tvixstore.cli.clients import open_client
    from tvixstore.explain import Explanations
    from tvixstore.rpc.client import explain
    from tvixstore.rpc.client.call import Unimplemented

    async with open_client(place, credentials) as client:
        if client.peer is None:
            # Nobody has asked it anything yet.
            found = await Explanations().document(
                wanted.hash, client.store.path_infos, dry_run=True
            )
        else:
            try:
                found = await explain(client.peer, wanted.hash, dry_run=dry_run)
                if found is None:
                    if not quiet:
                        _say(f"{wanted.name} was not asked for lately; a lookup now:")
                    found = await explain(client.peer, wanted.hash, dry_run=True)
            except Unimplemented as error:
                raise Unsupported(f"{place} is no daemon that can explain itself") from error
    assert found is not None, "a dry run always tells something"
    return found


def _exit_code(document: Document) -> int:
    """Of the dry run if there is one, else of the last lookup, else of the last NAR."""
    from tvixstore.cli.running import ABSENT, CORRUPT, UNKNOWN

    codes = {"present": 0, "absent": ABSENT, "skipped": ABSENT, "rejected": CORRUPT}
    codes |= dict.fromkeys(("unknown", "waiting", "cancelled", "broken"), UNKNOWN)
    told = document["dry_run"] or document["lookup"] or document["nar"]
    return codes.get(told["outcome"], FAILED)


def _say(text: str) -> None:
    typer.echo(f"{PROGRAM}: {text}", err=True)
