"""`tvix-store verify`: whether all that is kept is sound, and what is to be done if it is not.

Findings go to standard output, a line each; how far it is, and what it came to, to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tvixstore.cli.app import ComposeOption
from tvixstore.cli.keeping import CaFileOption, TokenFileOption, open_upkeep, parse_paths

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from tvixstore.upkeep import Finding, Progress, Summary, Upkeep, VerifyRequest

# On what is no terminal, after so much more was read it is told how far it is.
_TOLD_BYTES = 10 << 30


def verify(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Store paths, or their base names; without any, the whole store.",
            show_default=False,
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Drop what is damaged, and fetch paths that lost it again."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
    compose: ComposeOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Read and hash all that is kept, and say what is wrong. The daemon may go on."""
    from tvixstore.cli.running import run
    from tvixstore.upkeep import VerifyRequest

    request = VerifyRequest(repair, tuple(parse_paths(paths or [])))

    async def work() -> int:
        async with open_upkeep(compose, token_file, ca_file) as upkeep:
            return await _verify(upkeep, request, as_json=as_json)

    run(work)


async def _verify(upkeep: Upkeep, request: VerifyRequest, *, as_json: bool) -> int:
    from tvixstore.upkeep import Finding, Progress, Summary

    async with aclosing(upkeep.verify(request)) as events:
        with _meter() as meter:
            async for event in events:
                match event:
                    case Progress():
                        meter.show(event)
                    case Finding():
                        meter.tell(_json("finding", event) if as_json else _line(event))
                    case Summary():
                        summary = event
    if as_json:
        typer.echo(_json("summary", summary))
    typer.echo(_sum_up(summary, repair=request.repair), err=True)
    return _exit_code(summary)


def _exit_code(summary: Summary) -> int:
    from tvixstore.cli.running import CORRUPT, UNKNOWN

    if summary.unrepaired:
        return CORRUPT
    return UNKNOWN if summary.unread else 0


def _line(finding: Finding) -> str:
    return f"{finding.kind} {finding.key}: {finding.reason} [{finding.outcome}]"


def _json(kind: str, event: Finding | Summary) -> str:
    return json.dumps({"event": kind, **asdict(event)}, ensure_ascii=False)


def _sum_up(summary: Summary, *, repair: bool) -> str:
    from tvixstore.cli.progress import human

    text = (
        f"{summary.paths} paths, {summary.directories} Directories, {summary.blobs} chunk lists, "
        f"{summary.chunks} chunks, {human(summary.bytes)} read: "
    )
    parts = []
    if summary.damaged:
        parts.append(f"{summary.damaged} damaged")
        if repair:
            parts.append(f"{summary.damaged - summary.unrepaired} repaired")
        if summary.lost:
            parts.append(f"{summary.lost} paths lost for good")
        elif summary.unrepaired and not repair:
            parts.append("--repair drops them, and fetches again what it can")
    if summary.unread:
        parts.append(f"{summary.unread} could not be read")
    text += ", ".join(parts or ["all sound"])
    if summary.strays:
        text += f"; {summary.strays} stray files, which only take room"
    if summary.partial:
        text += f"; {summary.partial} paths only partly in this store, the rest behind it"
    return text


class _Lines:
    """A line when a phase begins, and after some GiB."""

    def __init__(self) -> None:
        self._phase = ""
        self._told = 0

    def show(self, progress: Progress) -> None:
        if progress.phase == self._phase and progress.bytes < self._told + _TOLD_BYTES:
            return
        self._phase = progress.phase
        self._told = progress.bytes
        typer.echo(f"verify: {_how_far(progress)}", err=True)

    def tell(self, line: str) -> None:
        typer.echo(line)
        # Whoever reads it along wants it now.
        sys.stdout.flush()


class _Bar(_Lines):
    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._bars = bars
        self._task = bars.add_task("begin", total=None, read="")

    def show(self, progress: Progress) -> None:
        from tvixstore.cli.progress import human

        self._bars.update(
            self._task,
            description=progress.phase,
            completed=progress.done,
            total=progress.total,
            read=f"{human(progress.bytes)} read",
        )


@contextmanager
def _meter() -> Iterator[_Lines]:
    """What fits standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("verify: {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[read]}"),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        yield _Bar(bars)


def _how_far(progress: Progress) -> str:
    from tvixstore.cli.progress import human

    total = "" if progress.total is None else f" of about {progress.total}"
    return f"{progress.phase}, {progress.done}{total}, {human(progress.bytes)} read"
