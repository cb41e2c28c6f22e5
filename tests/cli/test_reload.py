"""A compose file that is watched: when it counts as changed, and when its absence is said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.virtual_clock import virtual_clock
from tvixstore.cli import reload
from tvixstore.cli.reload import Watched
from tvixstore.policy.tasks import end

FILE = Path("compose.toml")
OLD, HALF, NEW = ((number, number, number, number) for number in range(3))


@pytest.mark.parametrize(
    ("seen", "asked_after"),
    [
        ([OLD] * 20, []),
        # It takes effect once it is the same at two looks.
        ([OLD, HALF, NEW, NEW, NEW, NEW], [4]),
        ([NEW, NEW, NEW], [2]),
        # An editor that takes it away first.
        ([OLD, None, None, NEW, NEW, NEW], [5]),
        ([OLD, None, None, OLD, OLD, OLD], []),
        # It stays away: said once, and what comes then counts again.
        ([None] * 20, [5]),
        ([None] * 7 + [OLD, OLD, OLD], [5, 9]),
    ],
)
def test_a_file_counts_as_changed_when_it_stays_as_it_is(
    seen: list[Any], asked_after: list[int]
) -> None:
    at: list[int] = []

    @virtual_clock
    async def watch() -> None:
        looks = iter(seen)
        asked, over = asyncio.Event(), asyncio.Event()

        async def run(function: Any, path: Path) -> Any:
            if asked.is_set():
                asked.clear()
                at.append(round(asyncio.get_running_loop().time()) - 1)
            try:
                return next(looks)
            except StopIteration:
                over.set()
                return seen[-1]

        pools: Any = SimpleNamespace(files=SimpleNamespace(run=run))
        watching = asyncio.create_task(reload._watch(pools, Watched(FILE, OLD), asked))
        await over.wait()
        await end([watching])

    watch()
    assert at == asked_after
