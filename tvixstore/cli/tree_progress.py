"""How an import, or an extraction, is seen: a bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tvixstore.cli.progress import human

if TYPE_CHECKING:
    from tvixstore.filesystem import TreeProgress


@contextmanager
def showing(what: str, *, quiet: bool) -> Iterator[Callable[[TreeProgress], None]]:
    """Whoever calls what this gives with sums so far has them shown, where somebody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what)
        sums: dict[bytes, TreeProgress] = {}

        def show(progress: TreeProgress) -> None:
            sums[progress.path] = progress
            files = sum(each.files for each in sums.values())
            size = sum(each.size for each in sums.values())
            sent = sum(each.sent for each in sums.values())
            bars.update(
                task, description=f"{what}: {files} files, {human(size)}, {human(sent)} new"
            )

        yield show
