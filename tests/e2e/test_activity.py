"""What a daemon shows of a slow download: as events from its start to its end, and to `top`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.caches import files_of, make_path
from tests.support.command import environment, tvix_store
from tests.support.daemon import PATIENCE, PROGRAM, Daemon, substituter
from tests.support.upstream_server import Reply, UpstreamServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    import aiohttp

PATH = make_path("slow", None, size=3 << 20)
HALF = len(PATH.nar) // 2


@pytest.fixture
async def gate() -> asyncio.Event:
    """Holds the second half of the NAR back."""
    return asyncio.Event()


@pytest.fixture
async def daemon(tmp_path: Path, gate: asyncio.Event) -> AsyncIterator[Daemon]:
    files = files_of([PATH])
    async with UpstreamServer() as upstream:
        upstream.otherwise(
            lambda seen: (
                Reply(body=files[seen.path], pause=gate, after=HALF)
                if seen.path == PATH.nar_target
                else Reply(body=files[seen.path])
                if seen.path in files
                else Reply(status=404)
            )
        )
        slow = substituter(upstream.url, None, name="slow-mirror", stall_timeout="60s")
        dead = substituter("http://127.0.0.1:1", None, name="dead-mirror", priority=50)
        address = {"grpc": "unix:./socket", "drain_timeout": "60s", "verify_ahead": "64KiB"}
        async with Daemon(tmp_path / "daemon", [slow, dead], daemon=address) as daemon:
            yield daemon


async def events(response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, Any], None]:
    """The events of a stream, as a browser has them."""
    name = ""
    async for line in response.content:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


async def fetch(daemon: Daemon, target: str) -> bytes:
    return (await daemon.get(target)).body


async def test_a_download_is_seen_from_its_start_to_its_end(
    daemon: Daemon, gate: asyncio.Event
) -> None:
    seen: list[dict[str, Any]] = []
    target = await daemon.nar_target(PATH.digits)
    async with daemon.session() as session, session.get("/_tvix/activity?interval=0.2") as response:
        readers: list[asyncio.Task[bytes]] = []
        async with asyncio.timeout(PATIENCE), aclosing(events(response)) as stream:
            async for name, snapshot in stream:
                assert name == "activity"
                if not readers:
                    assert snapshot["fills"] == []
                    readers = [asyncio.create_task(fetch(daemon, target)) for _ in range(2)]
                    continue
                seen += snapshot["fills"]
                if not gate.is_set() and snapshot["fills"] and at_the_gate(snapshot["fills"][0]):
                    assert snapshot["totals"]["requests"] == {"http": 2, "grpc": 0}
                    assert snapshot["totals"]["watchers"] == 1
                    await check_top(daemon)
                    gate.set()
                if gate.is_set() and not snapshot["fills"]:
                    break
        assert snapshot["totals"]["bytes"] == len(PATH.nar)
    assert await asyncio.gather(*readers) == [PATH.nar, PATH.nar]
    assert {each["what"] for each in seen} == {PATH.store_path}
    assert {each["source"] for each in seen} == {"slow-mirror"}
    assert max(each["rate"] for each in seen) > 0
    assert [each["bytes"] for each in seen] == sorted(each["bytes"] for each in seen)
    assert {each["total"] for each in seen} == {len(PATH.nar)}


def at_the_gate(fill: dict[str, Any]) -> bool:
    return bool(
        fill["phase"] == "downloading" and fill["readers"] == 2 and fill["bytes"] >= HALF >> 1
    )


async def check_top(daemon: Daemon) -> None:
    """`top` sees the same, as JSON and as text."""
    done = await tvix_store("top", "--once", "--json", "--compose", str(daemon.compose))
    assert (done.code, done.err) == (0, "")
    [fill] = json.loads(done.out)["fills"]
    assert (fill["what"], fill["phase"], fill["readers"]) == (PATH.store_path, "downloading", 2)
    done = await tvix_store("top", "--once", cwd=daemon.folder)
    head, _, line = done.out.splitlines()
    assert "  1 fill  " in head
    assert line.startswith(f"downloading  {PATH.store_path}  from slow-mirror  ")
    assert "2 readers" in line


async def test_a_daemon_that_stops_tells_its_watchers(daemon: Daemon) -> None:
    async with (
        daemon.session() as session,
        session.get("/_tvix/activity?interval=20") as response,
    ):
        stream = events(response)
        await anext(stream)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, "top", "--compose", str(daemon.compose)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        await process.stdout.readline()
        # With a minute to drain, which nobody would wait for.
        async with asyncio.timeout(30):
            await daemon.stop()
        assert [each async for each in stream] == [("end", {"reason": "the daemon is stopping"})]
        _, said = await process.communicate()
    assert process.returncode == 4
    assert said.startswith(b"tvix-store: ")


async def test_on_a_terminal_it_is_a_screen_until_q(daemon: Daemon) -> None:
    terminal, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "top", "--compose", str(daemon.compose)),
        stdin=theirs,
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
        env={**environment(), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(theirs)
    shown = b""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            while b"nothing is being fetched" not in shown:
                shown += await loop.run_in_executor(None, os.read, terminal, 4096)
            os.write(terminal, b"q")
            reading = loop.run_in_executor(None, _read_all, terminal)
            _, said = await process.communicate()
            shown += await reading
    finally:
        os.close(terminal)
    assert (process.returncode, said) == (0, b"")
    # The screen that was there before comes back.
    assert b"\x1b[?1049h" in shown and b"\x1b[?1049l" in shown


def _read_all(terminal: int) -> bytes:
    data = b""
    try:
        while part := os.read(terminal, 4096):
            data += part
    except OSError:
        # So Linux says that nobody holds the other end any more.
        pass
    return data
