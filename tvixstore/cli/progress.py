"""How a copy is seen: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

import typer

from tvixstore.activity import Progress as Waited
from tvixstore.activity import watching as waited_for
from tvixstore.transfer import Outcome, Report, Watcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tvixstore.pathinfo import Description

_UNITS = ("B", "kB", "MB", "GB", "TB")


@contextmanager
def watching(*, quiet: bool) -> Iterator[Watcher]:
    """What fits standard error."""
    if quiet:
        yield Watcher()
    elif sys.stderr.isatty():
        with _bars() as bars, waited_for(bars.waits):
            yield bars
    else:
        yield Lines()


class Lines(Watcher):
    """A line for each path that was copied; none for those that were there."""

    def differs(self, description: Description, there: Description) -> None:
        _say(_kept(description))

    def done(self, description: Description, outcome: Outcome) -> None:
        if outcome == "copied":
            _say(f"copied {description.store_path} ({description.nar_size} bytes)")


class Bars(Watcher):
    """Paths and bytes done of all, how fast, and what is on its way now."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("looking", total=None, paths="", current="")
        self._paths = 0
        self._done = 0
        # What is on its way, with how much of it has been counted.
        self._counted: dict[bytes, int] = {}
        self._names: dict[bytes, str] = {}
        # What a composition of our own waits for.
        self._waits: dict[tuple[str, str], str] = {}

    def waits(self, waited: Waited) -> None:
        """What is waited for now; questions, of which there are very many, apart."""
        if waited.kind == "lookup":
            return
        key = waited.kind, waited.what or waited.source
        self._waits.pop(key, None)
        if not waited.over:
            share = f" {waited.bytes / waited.total:.0%}" if waited.total else ""
            self._waits[key] = f"{waited.phase}{share} from {waited.source}"
        self._show()

    def planned(self, paths: int, size: int) -> None:
        self._paths = paths
        self._progress.update(self._task, description="copying", total=size)
        self._show()

    def began(self, description: Description) -> None:
        key = description.store_path.hash
        self._names[key] = description.store_path.name
        self._counted[key] = 0
        self._show()

    def advanced(self, description: Description, size: int) -> None:
        # Content may be a little more than its NAR: never count more than is to come.
        key = description.store_path.hash
        counted = self._counted.get(key, 0)
        size = min(size, description.nar_size - counted)
        self._counted[key] = counted + size
        self._progress.advance(self._task, size)

    def differs(self, description: Description, there: Description) -> None:
        self._progress.console.print(_kept(description), highlight=False, soft_wrap=True)

    def done(self, description: Description, outcome: Outcome) -> None:
        key = description.store_path.hash
        self._done += 1
        self._names.pop(key, None)
        self._progress.advance(self._task, description.nar_size - self._counted.pop(key, 0))
        self._show()

    def _show(self) -> None:
        current = next(reversed(self._names.values()), "")
        if self._waits:
            current = f"{current} ({next(reversed(self._waits.values()))})".lstrip()
        self._progress.update(
            self._task, paths=f"{self._done}/{self._paths} paths", current=current
        )


@contextmanager
def _bars() -> Iterator[Bars]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        TextColumn("{task.fields[paths]}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[current]}", markup=False),
        console=Console(stderr=True),
        # What was found out stands below it in words.
        transient=True,
    ) as progress:
        yield Bars(progress)


class Clock:
    """Measures from when it was made."""

    def __init__(self) -> None:
        self._began = perf_counter()

    @property
    def seconds(self) -> float:
        return perf_counter() - self._began


def sum_up(report: Report, seconds: float) -> str:
    """What a copy came to, in a line."""
    copied, skipped = report.of("copied"), report.of("skipped")
    size = sum(each.nar_size for each in copied)
    return (
        f"{len(copied)} copied, {len(skipped)} were there: "
        f"{human(size)} of NARs, {human(report.sent)} sent, {seconds:.1f} s"
    )


def human(size: float) -> str:
    """`size` bytes, in the unit that makes a short number of it."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} B"


def _kept(description: Description) -> str:
    return f"{description.store_path} is there with another NAR, and stays as it is"


def _say(line: str) -> None:
    typer.echo(line, err=True)
