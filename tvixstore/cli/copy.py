"""`tvix-store copy`: its arguments, and what it says."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.errors import InvalidData, StoreError

if TYPE_CHECKING:
    from tvixstore.cli.ends import CopySettings
    from tvixstore.cli.places import Place
    from tvixstore.nix import PublicKey
    from tvixstore.transfer import Report, Wanted


class Compressions(StrEnum):
    """How NARs in binary caches can be compressed."""

    none = "none"
    zstd = "zstd"
    xz = "xz"


class Sizes(StrEnum):
    """How Directories can state their sizes."""

    documented = "documented"
    doubled = "doubled"


PLACE = "URL|FILE"
_WHERE = (
    "grpc+http(s)://HOST:PORT, grpc+unix:///PATH, http(s)://…, file:///FOLDER, or a compose file"
)


def _file(flag: str, what: str) -> Any:
    return typer.Option(flag, metavar="FILE", help=what, show_default=False)


def copy(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Store paths, base names, or hashes.", show_default=False
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar=PLACE,
            help=f"Where to copy from: {_WHERE}. Left out: the local daemon.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar=PLACE,
            help="Where to copy to, likewise. One of the two can be left out.",
            show_default=False,
        ),
    ] = None,
    compose: ComposeOption = None,
    closure_info: Annotated[
        str | None,
        typer.Option(
            "--closure-info",
            metavar="FILE|-",
            help="A list of paths: `nix path-info --json`, or an exportReferencesGraph; - is "
            "standard input.",
            show_default=False,
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive/--no-recursive", "-r/ ", help="Also what the paths refer to, or not."
        ),
    ] = True,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=256, metavar="N", help="Paths at a time.")
    ] = 4,
    compression: Annotated[
        Compressions, typer.Option(help="How to compress NARs for a binary cache.")
    ] = Compressions.zstd,
    public_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--public-keys",
            metavar="NAME:KEY",
            help="Keys, one of which has to have signed each path; several, by spaces or again.",
            show_default=False,
        ),
    ] = None,
    no_check_sigs: Annotated[
        bool, typer.Option("--no-check-sigs", help="Copy what nobody trusted has signed, too.")
    ] = False,
    netrc_file: Annotated[
        Path | None, _file("--netrc-file", "Logins, as in a .netrc, for both ends.")
    ] = None,
    token_file: Annotated[Path | None, _file("--token-file", "A token, for both ends.")] = None,
    ca_file: Annotated[
        Path | None, _file("--ca-file", "Authorities in addition to the system's, for both ends.")
    ] = None,
    from_netrc_file: Annotated[
        Path | None, _file("--from-netrc-file", "Logins, for --from.")
    ] = None,
    from_token_file: Annotated[
        Path | None, _file("--from-token-file", "A token, for --from.")
    ] = None,
    from_ca_file: Annotated[
        Path | None, _file("--from-ca-file", "Authorities, for --from.")
    ] = None,
    to_netrc_file: Annotated[Path | None, _file("--to-netrc-file", "Logins, for --to.")] = None,
    to_token_file: Annotated[Path | None, _file("--to-token-file", "A token, for --to.")] = None,
    to_ca_file: Annotated[Path | None, _file("--to-ca-file", "Authorities, for --to.")] = None,
    directory_sizes: Annotated[
        Sizes,
        typer.Option(
            help="How the daemon that is written to counts the sizes of Directories: tvix's and "
            "snix's want `doubled`."
        ),
    ] = Sizes.documented,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was done, as a JSON object.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but what goes wrong.")
    ] = False,
) -> None:
    """Copy store paths, with all that they refer to, from one place to another.

    What is there is skipped; a copy that was broken off goes on when it is called again.
    """
    if source is None and target is None:
        raise typer.BadParameter("name --from or --to, or both")
    keys = parse_keys(public_keys or ())
    wanted = _wanted(paths or [], closure_info)
    from tvixstore.cli.clients import Credentials
    from tvixstore.cli.ends import CopySettings, trust_for
    from tvixstore.cli.places import default_place, parse_place
    from tvixstore.cli.running import run

    origin = default_place(compose) if source is None else parse_place(source)
    settings = CopySettings(
        trust=trust_for(origin, keys, check=not no_check_sigs, compose=compose),
        from_credentials=Credentials(
            from_token_file or token_file, from_netrc_file or netrc_file, from_ca_file or ca_file
        ),
        to_credentials=Credentials(
            to_token_file or token_file, to_netrc_file or netrc_file, to_ca_file or ca_file
        ),
        compression=compression.value,
        directory_sizes=directory_sizes.value,
    )
    job = _Job(
        origin,
        default_place(compose) if target is None else parse_place(target),
        settings,
        wanted,
        recursive=recursive,
        jobs=jobs,
        as_json=as_json,
        quiet=quiet,
    )
    run(job.run)


class _Job:
    """One copy, from its arguments to what is said of it."""

    def __init__(
        self,
        source: Place,
        target: Place,
        settings: CopySettings,
        wanted: list[Wanted],
        *,
        recursive: bool,
        jobs: int,
        as_json: bool,
        quiet: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._settings = settings
        self._wanted = wanted
        self._recursive = recursive
        self._jobs = jobs
        self._as_json = as_json
        self._quiet = quiet

    async def run(self) -> int:
        from tvixstore.cli.ends import open_ends
        from tvixstore.cli.progress import Clock, sum_up, watching
        from tvixstore.transfer import Copy, Report

        clock, report, error = Clock(), Report(), None
        try:
            with watching(quiet=self._quiet) as watcher:
                async with open_ends(self._source, self._target, self._settings) as (one, other):
                    copying = Copy(one, other, self._jobs, watcher, report)
                    await copying.run(self._wanted, recursive=self._recursive)
        except StoreError as failure:
            error = failure
            raise
        finally:
            if self._as_json:
                typer.echo(self._json(report, clock.seconds, error))
            if not self._quiet and (report.paths or error is None):
                typer.echo(sum_up(report, clock.seconds), err=True)
        return 0

    def _json(self, report: Report, seconds: float, error: StoreError | None) -> str:
        from tvixstore.log import redact

        copied = report.of("copied")
        told: dict[str, Any] = {
            "from": str(self._source),
            "to": str(self._target),
            "copied": len(copied),
            "skipped": len(report.of("skipped")),
            "nar_bytes": sum(each.nar_size for each in copied),
            "sent_bytes": report.sent,
            "seconds": round(seconds, 3),
            "paths": [
                {"path": str(each.store_path), "nar_size": each.nar_size, "outcome": outcome}
                for each, outcome in report.paths
            ],
        }
        if error is not None:
            told["error"] = redact(str(error))
        return json.dumps(told, ensure_ascii=False)


def parse_keys(texts: list[str] | tuple[str, ...]) -> list[PublicKey]:
    """What `--public-keys` names. Raises `BadParameter`."""
    from tvixstore.nix import PublicKey

    try:
        return [PublicKey.parse(key) for text in texts for key in text.split()]
    except InvalidData as error:
        raise typer.BadParameter(f"--public-keys: {error}") from None


def _wanted(paths: list[str], closure_info: str | None) -> list[Wanted]:
    """What the arguments name. Raises `BadParameter`."""
    from tvixstore.transfer import parse_document, parse_wanted

    try:
        wanted = [parse_wanted(path) for path in paths]
        if closure_info is not None:
            name = "standard input" if closure_info == "-" else closure_info
            wanted += parse_document(_read(closure_info), name)
    except InvalidData as error:
        raise typer.BadParameter(str(error)) from None
    if not wanted:
        raise typer.BadParameter("name store paths, or a list of them with --closure-info")
    return list({each.hash: each for each in wanted}.values())


def _read(name: str) -> bytes:
    from tvixstore.transfer.documents import MOST_BYTES

    try:
        if name == "-":
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}") from None
