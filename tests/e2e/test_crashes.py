"""SIGKILL at each step of writing, and at any time: nothing partial is ever to be seen."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.e2e.state import assert_nothing_is_partial
from tests.nar.trees import File, Link, Tree
from tests.support.caches import MadePath, files_of, make_path
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, Seen, UpstreamServer
from tvixstore.kv.steps import STEPS, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient


def tree(seed: int) -> Tree:
    """Something of everything that is stored in a way of its own: chunks large and small, lists of
    them, files of one chunk, directories in directories."""
    noise = random.Random(seed)
    return {
        b"large": File(noise.randbytes(3_000_000)),
        b"folder": {
            b"small": File(noise.randbytes(1_000), executable=True),
            b"folder": {b"one-chunk": File(noise.randbytes(100_000)), b"link": Link(b"../small")},
            b"empty": File(b""),
        },
    }


def serve(upstream: UpstreamServer, paths: list[MadePath]) -> None:
    files = files_of(paths)

    def script(seen: Seen) -> Reply:
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    upstream.otherwise(script)


async def fetch(daemon: Daemon, path: MadePath) -> None:
    """Asks for a NAR, whatever becomes of it."""
    with suppress(aiohttp.ClientError, AssertionError):
        await daemon.get(await daemon.nar_target(path.digits))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_a_kill_at_any_step_leaves_nothing_partial(
    step: Step, count: int, tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    key = upstreams.workshop.secret_key
    paths = [make_path(f"killed-{number}", key, tree(number)) for number in range(3)]
    async with UpstreamServer() as upstream:
        serve(upstream, paths)
        daemon = Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)])
        await daemon.start(TVIXSTORE_KILL_AT=f"{step}:{count}")
        for path in paths:
            await fetch(daemon, path)
        # It may be over with the clients, and still be writing.
        assert await daemon.ended() == -signal.SIGKILL
        await assert_nothing_is_partial(daemon.state)
        async with daemon:
            await client.copy(daemon.url, *(path.store_path for path in paths))
            await daemon.settled()
    await client.verify()
    found = await assert_nothing_is_partial(daemon.state)
    assert sorted(found) == sorted(path.store_path for path in paths)


@pytest.mark.parametrize("rounds", [4, pytest.param(20, marks=pytest.mark.slow)])
async def test_kills_at_any_time_leave_nothing_partial(
    rounds: int, tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    key = upstreams.workshop.secret_key
    # Three that are new in each round.
    groups = [
        [make_path(f"{turn}-{number}", key, tree(10 * turn + number)) for number in range(3)]
        for turn in range(rounds)
    ]
    paths = [path for group in groups for path in group]
    when = random.Random(rounds)
    async with UpstreamServer() as upstream:
        serve(upstream, paths)
        daemon = Daemon(tmp_path / "tvix", [substituter(upstream.url, upstreams.key)])
        for group in groups:
            await daemon.start()
            fetching = asyncio.gather(*(fetch(daemon, path) for path in group))
            await upstream.requested(group[0].nar_target)
            await asyncio.wait([fetching], timeout=when.uniform(0, 0.25))
            assert await daemon.kill() == -signal.SIGKILL
            await fetching
            await assert_nothing_is_partial(daemon.state)
        async with daemon:
            await client.copy(daemon.url, *(path.store_path for path in paths))
            await daemon.settled()
    await client.verify()
    found = await assert_nothing_is_partial(daemon.state)
    assert sorted(found) == sorted(path.store_path for path in paths)
