"""What the rows share: processes to measure, loads to put on them, and how results are told."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from bench.caches import PUBLIC_KEY
from bench.client import Job, Outcome, url_in
from bench.fakes import REQUESTS, Fake
from tests.support.daemon import Daemon, Section, substituter

RUNS = 5
GIGABIT = 125e6
RTT = 0.020
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Row:
    """One line of the table. `samples` are all that was measured, by what and in which unit."""

    work: str
    aim: str
    measured: str
    met: bool
    samples: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(slots=True)
class Load:
    """What a load came to: `cpu` are the seconds that the server spent on it."""

    outcome: Outcome
    cpu: float

    @property
    def requests_per_second(self) -> float:
        return self.outcome.requests / self.outcome.seconds

    @property
    def megabytes_per_second(self) -> float:
        return self.outcome.received / self.outcome.seconds / 1e6


@asynccontextmanager
async def workspace() -> AsyncIterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tvixstore-bench-"))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)


@asynccontextmanager
async def server(*arguments: str | Path) -> AsyncIterator[Server]:
    """`python -m bench.server …`"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.server", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield Server(int(await process.stdout.readline()), process.pid)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def upstream(folder: Path, rate: float = 0, rtt: float = 0) -> AsyncIterator[Server]:
    """A cache over a link of `rate` bytes/s and `rtt` seconds; by default over bare loopback."""
    async with server("cache", folder, str(rate), str(rtt)) as running:
        yield running


@asynccontextmanager
async def daemon(folder: Path, cache: Server) -> AsyncIterator[Server]:
    """A daemon with an empty state whose one substituter is `cache`; nothing but defaults."""
    section: Section = {"url": cache.url, "public_keys": [PUBLIC_KEY]}
    async with running(Daemon(folder, [section])) as started:
        yield started


@asynccontextmanager
async def running(process: Daemon) -> AsyncIterator[Server]:
    async with process:
        yield Server(process.port, process.pid)


@asynccontextmanager
async def warm_daemon(
    folder: Path, cache: Path, digits: Sequence[str], token: str | None = None
) -> AsyncIterator[Server]:
    """A daemon that has those paths of `cache`, and no upstream to ask any more.

    With a `token` nobody reads anything without it.
    """
    async with upstream(cache) as source:
        section = substituter(source.url, PUBLIC_KEY, timeout="30s", stall_timeout="30s")
        process = Daemon(folder, [section])
        async with running(process) as filling:
            await load(filling, "paths", digits, connections=8)
            await process.settled()
    if token is not None:
        (folder / "tokens").write_text(f"{token} read\n")
        settings: Section = {"tokens_file": "tokens", "anonymous_read": False}
        process = Daemon(folder, [section], daemon=settings)
    async with running(process) as started:
        yield started


async def load(
    target: Server,
    kind: Literal["hammer", "each", "paths"],
    targets: Sequence[str],
    *,
    connections: int = 1,
    seconds: float = 0.0,
    token: str | None = None,
    status: int = 200,
) -> Load:
    """Puts the load on that server, from a process of its own."""
    job = Job(kind, target.port, list(targets), connections, seconds, token, status)
    before = cpu_seconds(target.pid)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.client"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate(json.dumps(asdict(job)).encode())
    if process.returncode:
        raise SystemExit(f"the load on {target.url} failed")
    return Load(Outcome(**json.loads(told)), cpu_seconds(target.pid) - before)


def cpu_seconds(pid: int) -> float:
    """What a process has spent so far, all of its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def nar_target(target: Server, digits: str) -> str:
    """Where the narinfo of that path says that its NAR is."""
    return f"/{url_in(await _get(target, f'/{digits}.narinfo'))}"


async def _get(target: Server, path: str) -> bytes:
    """The body of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = await reader.readexactly(size)
    writer.close()
    return body


@asynccontextmanager
async def fakes(*wanted: Fake) -> AsyncIterator[list[Server]]:
    """`python -m bench.fakes …`: upstreams that take their time, in one process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fakes", json.dumps([asdict(each) for each in wanted])),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        ports = json.loads(await process.stdout.readline())
        yield [Server(port, process.pid) for port in ports]
    finally:
        process.kill()
        await process.wait()


async def requests_at(fake: Server) -> int:
    """How many requests a fake has had."""
    return int(await _get(fake, REQUESTS.decode()))


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample that `share` of all are below: of 1,000 at 0.99, the tenth from above."""
    return sorted(samples)[int(len(samples) * share)]


def ratio(samples: Sequence[float], ceiling: Sequence[float]) -> float:
    """The median of the ratios of samples that were taken one right after the other."""
    return median([one / other for one, other in zip(samples, ceiling, strict=True)])
