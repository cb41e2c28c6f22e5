"""One cell, lived through: upstreams, a daemon in front of them, and a client in front of that."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.state import assert_nothing_is_partial, contents_of
from tests.faults.cache import Cache, Trouble
from tests.support.caches import MadePath, make_path, signed
from tests.support.daemon import Daemon, Section
from tests.support.nix_client import NixClient, environment
from tvixstore.nix import SecretKey, StorePath

if TYPE_CHECKING:
    from tests.faults.matrix import Cell, Result
    from tests.support.nix_client import Finished

EXPRESSION = Path(__file__).with_name("paths.nix")
# Of each path's one file. The small one is verified before its first byte goes out; of the large
# one, the client has had a good part when the fault strikes in its middle.
SIZES = {"small": 300_000, "large": 3_000_000}
# What a whole run of Nix may take: five attempts, each of which waits for three that stall.
PATIENCE = 600.0


@dataclass(frozen=True)
class Pace:
    """What is set of each substituter and of the daemon, and how slow what is slow is."""

    substituter: Section = field(default_factory=dict)
    daemon: Section = field(default_factory=dict)
    slow: float = 3.0


# As an operator has it who has set nothing.
DEFAULTS = Pace()
# For tests: whoever hangs is found out sooner.
HURRIED = Pace(
    {"timeout": "1500ms", "connect_timeout": "600ms", "stall_timeout": "1s"},
    {"lookup_timeout": "4s"},
    slow=0.3,
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the client."""

    result: Result
    seconds: float
    code: int
    # Its error, without what differs from run to run.
    message: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a cell."""

    first: Run
    # Where the first one failed.
    second: Run | None
    # What the daemon logged of members, in order, each event with its node.
    events: tuple[tuple[str, str], ...]
    # The store paths in the state afterwards, all of which are whole.
    kept: tuple[str, ...]
    # How often the fault struck, and how often the daemon's own figures say that the member was
    # asked, by outcome.
    hits: int
    asked: Mapping[str, float]
    # Whether the faulty member's breaker was open at the end; asked only where the client failed.
    left_alone: bool
    log: str


@dataclass(frozen=True)
class Paths:
    """What the upstreams have, signed by `key`."""

    key: SecretKey
    by_name: Mapping[str, MadePath]

    @classmethod
    def make(cls, folder: Path) -> Paths:
        key = SecretKey.generate("upstream-1")
        return cls(key, {name: _make(folder, name, key) for name in SIZES})


def _make(folder: Path, name: str, key: SecretKey) -> MadePath:
    question = f"(import {EXPRESSION}).{name}.outPath"
    command = ("nix-instantiate", "--eval", "--readonly-mode", "--expr", question)
    asked = subprocess.run(
        command, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    path = make_path(name, key, size=SIZES[name])
    store_path = StorePath.from_absolute(asked.stdout.strip().strip('"'))
    return MadePath(signed(replace(path.narinfo, store_path=store_path), key), path.nar)


async def live_through(
    cell: Cell,
    paths: Paths,
    folder: Path,
    pace: Pace,
    starting: asyncio.Semaphore,
    planted: str = "",
) -> Seen:
    """Everything is new: servers, daemon, state, client.

    `starting` is held while the daemon starts, which is what takes most work of all. `planted` is
    Python that makes the daemon wrong.
    """
    name = "large" if cell.place == "NAR, middle" else "small"
    path = paths.by_name[name]
    public = str(paths.key.public_key)
    async with AsyncExitStack() as held:
        trouble = Trouble(cell.fault, cell.place, pace.slow)
        faulty = await held.enter_async_context(Cache(path, trouble))
        members = {"faulty": faulty}
        for number in range(cell.beside):
            healthy = await held.enter_async_context(Cache(path))
            healthy.comes_after(faulty)
            members[f"healthy-{number + 1}"] = healthy
        sections: list[Section] = [
            {"name": name, "url": member.url, "public_keys": [public], **pace.substituter}
            for name, member in members.items()
        ]
        daemon = Daemon(folder / "daemon", sections, daemon=pace.daemon, planted=planted)
        async with AsyncExitStack() as running:
            async with starting:
                await running.enter_async_context(daemon)
            client = NixClient(folder / "client", public, patience=PATIENCE)
            first = await _run(client, daemon, name, path)
            second = None
            if first.result == "failed":
                second = await _run(client, daemon, name, path)
            await daemon.settled()
            asked = await _asked(daemon)
            left_alone = second is not None and await _is_left_alone(daemon)
        if "substituted" in (first.result, second and second.result):
            await client.verify()
        assert not [event for event in daemon.log if event["level"] == "error"], daemon.text()
    return Seen(
        first,
        second,
        tuple((event["event"], event["node"]) for event in daemon.log if "node" in event),
        tuple(await _kept(daemon.state)),
        faulty.hits,
        asked,
        left_alone,
        daemon.text(),
    )


async def _run(client: NixClient, daemon: Daemon, name: str, path: MadePath) -> Run:
    begin = time.perf_counter()
    run = await client.build(daemon.url, EXPRESSION, name, check=False)
    seconds = time.perf_counter() - begin
    return Run(_result(client, run, path), seconds, run.code, _message(run), run.output)


def _result(client: NixClient, run: Finished, path: MadePath) -> Result:
    if run.code != 0:
        return "failed"
    data = client.path(path.store_path).read_bytes()
    if data == b"built here\n":
        return "built"
    assert data and data in path.nar, "what was installed is neither the upstream's nor built here"
    return "substituted"


def _message(run: Finished) -> str:
    """The first error that was final, with a name in place of each hash."""
    errors = [line for line in run.output.splitlines() if line.startswith("error: ")]
    if not run.code or not errors:
        return ""
    text = re.sub(r"http://127\.0\.0\.1:\d+/", "", errors[0].removeprefix("error: "))
    return re.sub(r"[0-9a-z]{32}(-[0-9a-z]{52})?", "…", text).rstrip(";")


async def _asked(daemon: Daemon) -> dict[str, float]:
    """How often the faulty member was asked, by outcome, as the daemon counts it."""
    asked: dict[str, float] = {}
    for line in (await daemon.get("/metrics")).body.decode().splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.startswith("tvixstore_node_calls_total{") and 'node="faulty"' in sample:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample))
            call = f"{labels['call']} {labels['outcome']}"
            asked[call] = asked.get(call, 0) + float(value)
    return {call: times for call, times in asked.items() if times}


async def _is_left_alone(daemon: Daemon) -> bool:
    """Whether the daemon says so when it is asked for something else."""
    answer = await daemon.get(f"/{'0' * 32}.narinfo")
    return b"left alone" in answer.body


async def _kept(state: Path) -> list[str]:
    kept = await assert_nothing_is_partial(state)
    if not kept:
        contents = await contents_of(state)
        assert contents.is_empty, contents
    return kept
