"""`tvix-store daemon` as a process: how it starts, what it says, how it stops, when it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.daemon import PROGRAM, Answer, Daemon, substituter
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore import __version__

NARINFO = "/0000000000000000000000000000000a.narinfo"
# Nobody listens there: the port is reserved.
DEAD = "http://127.0.0.1:1"


async def refusal(daemon: Daemon) -> str:
    """Launches `daemon`, which has to refuse with exit code 1 and one line; that line."""
    await daemon.launch()
    assert await daemon.ended() == 1
    (line,) = daemon.lines
    assert line.startswith("tvix-store: ")
    return line.removeprefix("tvix-store: ")


async def state_of_upstream(daemon: Daemon) -> str:
    answer = await daemon.get("/readyz")
    assert answer.status == 200
    (upstream,) = json.loads(answer.body)["substituters"]
    return str(upstream["state"])


@contextlib.asynccontextmanager
async def in_flight(
    tmp_path: Path, drain_timeout: str
) -> AsyncIterator[tuple[Daemon, asyncio.Task[Answer], asyncio.Event]]:
    """A daemon, a lookup that waits for its upstream, and what makes the upstream say 404."""
    release = asyncio.Event()
    async with UpstreamServer() as upstream:
        upstream.on(NARINFO, Reply(status=404, before=release))
        member = substituter(upstream.url, None, timeout="30s")
        daemon = Daemon(
            tmp_path, [member], daemon={"drain_timeout": drain_timeout, "lookup_timeout": "40s"}
        )
        await daemon.start()
        asking = asyncio.create_task(daemon.get(NARINFO))
        try:
            await upstream.requested(NARINFO)
            yield daemon, asking, release
        finally:
            release.set()
            await asyncio.wait([asking])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_starts_without_its_upstreams_and_stops_when_told_to(
    tmp_path: Path, number: signal.Signals
) -> None:
    daemon = Daemon(tmp_path, [substituter(DEAD, None)])
    await daemon.start()
    assert (await daemon.get("/readyz")).status == 200
    await daemon.stop(number)
    assert [event["event"] for event in daemon.log if event["event"] != "tree"] == [
        "starting",
        "listening",
        "state",
        "compose.lint",
        "ready",
        "signal",
        "draining",
        "stopped",
    ]
    assert daemon.events("state")[0]["path"] == str(tmp_path / "state")
    assert "(cache)" in daemon.events("tree")[0]["text"]


async def test_it_starts_again_on_the_state_that_it_left(tmp_path: Path) -> None:
    for _ in range(2):
        async with Daemon(tmp_path) as daemon:
            assert (await daemon.get("/nix-cache-info")).status == 200


async def test_it_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    await daemon.start()
    await daemon.kill()
    async with daemon:
        assert (await daemon.get("/healthz")).status == 200


async def test_requests_that_run_are_answered_before_it_stops(tmp_path: Path) -> None:
    async with in_flight(tmp_path, "30s") as (daemon, asking, release):
        stopping = asyncio.create_task(daemon.stop())
        await daemon.logged("draining")
        # The doors close right after it is said.
        with pytest.raises(aiohttp.ClientConnectorError):
            async with asyncio.timeout(30):
                while True:
                    await daemon.get("/healthz")
        release.set()
        assert (await asking).status == 404
        await stopping


async def test_it_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    async with in_flight(tmp_path, "100ms") as (daemon, asking, _):
        await daemon.stop()
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_a_second_signal_stops_it_at_once(tmp_path: Path) -> None:
    async with in_flight(tmp_path, "1h") as (daemon, asking, _):
        for _ in range(2):
            os.kill(daemon.pid, signal.SIGINT)
            await daemon.logged("draining")
        assert await daemon.ended() == 130
        daemon.assert_log_is_clean()
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_a_second_daemon_on_the_same_state_refuses(tmp_path: Path) -> None:
    async with Daemon(tmp_path / "first") as first:
        second = Daemon(tmp_path / "second", daemon={"state": str(first.state)})
        assert f"{first.state} is in use by process {first.pid}" in await refusal(second)


async def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await refusal(Daemon(tmp_path, daemon={"http": address}))
    assert line.startswith(f"cannot listen: {address} is in use")
    # What was opened before was let go of: the next one may have it.
    async with Daemon(tmp_path):
        pass


@pytest.mark.parametrize("state", ["compose.toml", "compose.toml/state", "/proc/state"])
async def test_a_state_that_cannot_be_made_is_refused(tmp_path: Path, state: str) -> None:
    line = await refusal(Daemon(tmp_path, daemon={"state": state}))
    assert line.startswith(f"state directory {tmp_path / state}: ")


async def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "format").write_text("tvixstore state, version 999\n")
    line = await refusal(Daemon(tmp_path))
    assert "was written by another version" in line
    assert "version 999" in line


async def test_a_dead_upstream_is_told_of_once(tmp_path: Path) -> None:
    async with Daemon(tmp_path, [substituter(DEAD, None, name="mirror")]) as daemon:
        assert await state_of_upstream(daemon) == "up"
        for _ in range(5):
            assert (await daemon.get(NARINFO)).status == 503
        assert await state_of_upstream(daemon) == "down"
        assert await daemon.metric("tvixstore_upstream_up", node="mirror") == 0
        assert len(daemon.events("upstream.down")) == 1


async def test_credentials_are_in_no_line(tmp_path: Path) -> None:
    member = substituter(
        "http://user:hunter2@127.0.0.1:1", None, proxy="http://user:hunter3@127.0.0.1:1"
    )
    async with Daemon(tmp_path, [member], daemon={"log_level": "debug"}) as daemon:
        assert (await daemon.get(NARINFO)).status == 503
        assert b"hunter" not in (await daemon.get("/readyz")).body
    assert "hunter" not in daemon.text()
    assert "127.0.0.1:1" in daemon.text()


async def test_it_listens_on_a_unix_socket_and_takes_it_away_again(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with (
        Daemon(tmp_path, daemon={"http": "unix:http.sock"}) as daemon,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://daemon/healthz") as response,
    ):
        assert response.status == 200
        assert daemon.events("listening")[0]["http"] == f"http+unix:{path}"
    assert not path.exists()


async def test_the_text_form_says_where_it_listens_and_that_it_is_ready(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\ngrpc = "127.0.0.1:0"\n')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "daemon"), cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    lines = []
    while line := (await process.stderr.readline()).decode():
        lines.append(line.rstrip("\n").partition(" ")[2])
        if line.endswith(" info ready\n"):
            process.terminate()
    assert await process.wait() == 0
    assert lines[:4] == [
        f"info starting version={__version__} compose=compose.toml",
        lines[1],
        lines[2],
        f"info state path={tmp_path / 'state'} format=2",
    ]
    assert lines[1].startswith("info listening http=http://127.0.0.1:")
    assert lines[2].startswith("info listening grpc=grpc+http://127.0.0.1:")
    assert lines[2].endswith(' writes=true why="only this machine can connect"')
    assert lines[4].startswith('info tree text="  root (local) ')
    assert lines[5:] == [
        "info ready",
        "info signal name=SIGTERM",
        "info draining seconds=10.0",
        "info stopped",
    ]


async def test_it_serves_grpc_on_a_socket_and_takes_it_away_again(tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    daemon = Daemon(tmp_path, daemon={"grpc": "unix:grpc.sock"})
    await daemon.start()
    (listening,) = [event for event in daemon.events("listening") if "grpc" in event]
    assert (listening["grpc"], listening["writes"]) == (f"grpc+unix://{path}", True)
    assert path.is_socket()
    await daemon.stop()
    assert not path.exists()


async def test_it_serves_a_long_form_too(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    services = ("blobservices", "directoryservices", "pathinfoservices")
    nodes = "".join(f'[{service}.root]\ntype = "memory"\n' for service in services)
    settings = daemon.compose.read_text().partition("[store]")[0]
    daemon.compose.write_text(settings + nodes)
    async with daemon:
        assert (await daemon.get("/nix-cache-info")).status == 200
        assert (await daemon.get(NARINFO)).status == 404
        assert daemon.events("tree")[0]["text"].startswith("  root (memory) ")
    # What is remembered of NARs is kept, whatever else is not.
    assert (tmp_path / "state" / "format").is_file()
