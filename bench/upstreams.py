"""Daemons over several upstreams, and the same questions put to two of them in turn."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.caches import PUBLIC_KEY
from bench.harness import Server, load, running
from tests.support.daemon import Daemon, Section, Value
from tvixstore.nix import nixbase32


@asynccontextmanager
async def over(
    folder: Path, urls: Sequence[str], *, settings: Section | None = None, **keys: Value
) -> AsyncIterator[Server]:
    """A daemon whose substituters at `urls` are one class; `keys` are those of each."""
    sections: list[Section] = [
        {"url": url, "name": f"upstream-{number}", "public_keys": [PUBLIC_KEY], **keys}
        for number, url in enumerate(urls)
    ]
    async with running(Daemon(folder, sections, daemon=settings)) as started:
        yield started


async def in_turn(
    daemons: Sequence[Server], targets: Sequence[str], rounds: int, status: int = 200
) -> list[list[float]]:
    """The seconds that each of `targets` took at each of `daemons`, one question at a time.

    They are asked a part of the targets in turn, so that whatever else the machine does is
    everybody's.
    """
    waits: list[list[float]] = [[] for _ in daemons]
    for start in range(rounds):
        for daemon, taken in zip(daemons, waits, strict=True):
            done = await load(daemon, "each", targets[start::rounds], status=status)
            taken += done.outcome.waits
    return waits


def milliseconds(waits: Sequence[float]) -> list[float]:
    return [wait * 1e3 for wait in waits]


def absent_targets(count: int) -> list[str]:
    """Narinfos that nobody has."""
    hashes = (hashlib.sha256(b"absent %d" % number).digest()[:20] for number in range(count))
    return [f"/{nixbase32.encode(each)}.narinfo" for each in hashes]
