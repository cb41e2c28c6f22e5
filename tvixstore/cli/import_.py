"""`tvix-store import`: trees on disk become store paths."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.cli.copy import Sizes
from tvixstore.cli.storing import CaFileOption, TargetOption, TokenFileOption
from tvixstore.errors import InvalidData

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tvixstore.castore import SizeRule
    from tvixstore.cli.clients import Credentials
    from tvixstore.cli.places import ComposePlace, DaemonPlace
    from tvixstore.filesystem import Importer, OnProgress
    from tvixstore.pathinfo import PathInfo

# Trees at a time: while one waits for the store, the other one is read.
_AT_ONCE: Final = 2


def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files or folders.")],
    target: TargetOption = None,
    compose: ComposeOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to call it, if not as the file is; for one PATH.",
            show_default=False,
        ),
    ] = None,
    flat: Annotated[
        bool, typer.Option("--flat", help="Address a file by its contents, without its NAR.")
    ] = False,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
    directory_sizes: Annotated[
        Sizes,
        typer.Option(
            help="How the daemon counts the sizes of Directories: tvix's and snix's want `doubled`."
        ),
    ] = Sizes.documented,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array, at the end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Take files and folders into the store; print their store paths, as `nix-store --add` does.

    Content that is there is not sent again. A file that changes meanwhile, or that no store path
    can hold, is an error, and that path is not imported.
    """
    if name is not None and len(paths) > 1:
        raise typer.BadParameter("--name is for one PATH")
    if name is not None:
        _check_name(name)
    from tvixstore.castore import SizeRule
    from tvixstore.cli.clients import Credentials
    from tvixstore.cli.running import run
    from tvixstore.cli.storing import store_place

    place = store_place(target, compose)
    job = _Job(
        *(place, Credentials(token_file, None, ca_file), SizeRule(directory_sizes.value)),
        *(paths, name),
        flat=flat,
        as_json=as_json,
        quiet=quiet,
    )
    run(job.run)


def _check_name(name: str) -> None:
    """Before anything is opened. Raises `BadParameter`."""
    from tvixstore.nix import check_new_name

    try:
        check_new_name(name)
    except InvalidData as error:
        raise typer.BadParameter(f"--name: {error}") from None


class _Job:
    """One import, from its arguments to what is said of it."""

    def __init__(
        self,
        place: DaemonPlace | ComposePlace,
        credentials: Credentials,
        sizes: SizeRule,
        paths: list[Path],
        name: str | None,
        *,
        flat: bool,
        as_json: bool,
        quiet: bool,
    ) -> None:
        self._place = place
        self._credentials = credentials
        self._sizes = sizes
        self._paths = paths
        self._name = name
        self._flat = flat
        self._as_json = as_json
        self._quiet = quiet
        # What came of each path that is done.
        self._done: dict[int, PathInfo] = {}

    async def run(self) -> int:
        from tvixstore.cli.tree_progress import showing
        from tvixstore.parallel import in_parallel

        try:
            with showing("importing", quiet=self._quiet) as on_progress:
                async with self._importer(on_progress) as importer:

                    async def add(index: int) -> None:
                        self._done[index] = await importer.add(
                            self._paths[index], name=self._name, flat=self._flat
                        )

                    await in_parallel(add, range(len(self._paths)), _AT_ONCE)
        finally:
            # After the bar is gone; of an import that failed, those that were done.
            self._print()
        return 0

    @asynccontextmanager
    async def _importer(self, on_progress: OnProgress) -> AsyncIterator[Importer]:
        from tvixstore.cli.clients import open_client
        from tvixstore.filesystem import Importer
        from tvixstore.rpc.codec import MAX_MESSAGE_BYTES

        async with open_client(self._place, self._credentials) as client:
            # A composition says itself how it wants Directories.
            remote = client.composition is None
            sizes = self._sizes if remote else client.store.sizes
            yield Importer(
                *(client.content, client.store.path_infos, client.pools, sizes, on_progress),
                directory_bytes=MAX_MESSAGE_BYTES if remote else None,
            )

    def _print(self) -> None:
        done = sorted(self._done)
        if self._as_json:
            typer.echo(json.dumps([self._told(index) for index in done]))
            return
        for index in done:
            typer.echo(self._done[index].store_path)

    def _told(self, index: int) -> dict[str, Any]:
        info = self._done[index]
        return {
            # In ASCII, and a byte that is no UTF-8 as a surrogate: `os.fsencode` undoes that.
            "source": str(self._paths[index]),
            "path": str(info.store_path),
            "nar_hash": f"sha256-{base64.b64encode(info.nar_sha256).decode()}",
            "nar_size": info.nar_size,
            "ca": str(info.ca),
        }
