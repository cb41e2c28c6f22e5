"""The daemon below something like systemd: sockets passed on, news of its life, a watchdog."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.daemon import PATIENCE, PROGRAM, Daemon
from tests.support.supervisor import NotifySocket, abstract_name, pass_on

if TYPE_CHECKING:
    from pathlib import Path

# Blocks the event loop for good: Python runs signal handlers between two steps of it.
STUCK_ON_SIGNAL = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))"
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.stat(path).st_mode)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """One request on that connection, and the answer to its end."""
    try:
        writer.write(REQUEST)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_daemon_serves_on_sockets_that_it_inherits_and_tells_of_its_life(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "grpc")
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.socket(socket.AF_UNIX) as third,
        NotifySocket(abstract_name()) as supervisor,
    ):
        third.bind(path)
        third.listen()
        planted, descriptors = pass_on({"http": [first, second], "grpc": [third]})
        # The port is taken by the very socket that is passed on: it cannot have bound it itself.
        address = f"127.0.0.1:{first.getsockname()[1]}"
        daemon = Daemon(
            tmp_path / "d",
            daemon={"http": address, "grpc": "127.0.0.1:0"},
            environment={"NOTIFY_SOCKET": supervisor.address, "WATCHDOG_USEC": "200000"},
            planted=planted,
            descriptors=descriptors,
        )
        # Who connects before the daemon is there waits for it.
        early = await asyncio.open_connection(*second.getsockname())
        async with daemon:
            assert b"200 OK" in await exchange(*early)
            assert (await daemon.get("/readyz")).status == 200
            listening = daemon.events("listening")
            assert [event.get("http") or event["grpc"] for event in listening] == [
                f"http://{address}",
                f"http://127.0.0.1:{second.getsockname()[1]}",
                f"grpc+unix://{path}",
            ]
            assert all(event["inherited"] for event in listening)
            told = await supervisor.next()
            assert told["READY"] == "1" and address in told["STATUS"] and path in told["STATUS"]
            for _ in range(3):
                assert await supervisor.next() == {"WATCHDOG": "1"}
            os.kill(daemon.pid, signal.SIGTERM)
            told = await supervisor.told("STOPPING")
            assert told["EXTEND_TIMEOUT_USEC"] == "25000000" and "draining" in told["STATUS"]
            assert await daemon.ended() == 0
        # They belong to whoever passed them on: the next daemon serves on them.
        late = await asyncio.open_connection(*first.getsockname())
        async with daemon:
            assert b"200 OK" in await exchange(*late)
        assert await asyncio.to_thread(is_socket, path)


async def test_a_daemon_whose_loop_is_stuck_no_longer_feeds_the_watchdog(tmp_path: Path) -> None:
    with NotifySocket(f"{tmp_path}/n") as supervisor:
        environment = {"NOTIFY_SOCKET": supervisor.address, "WATCHDOG_USEC": "100000"}
        daemon = Daemon(tmp_path / "d", environment=environment, planted=STUCK_ON_SIGNAL)
        async with daemon:
            for _ in range(3):
                await supervisor.told("WATCHDOG")
            os.kill(daemon.pid, signal.SIGUSR1)
            # As systemd would, with more patience: many periods without a ping.
            with pytest.raises(TimeoutError):
                while True:
                    await supervisor.next(within=2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await daemon.get("/healthz")
            await daemon.kill()


async def test_sockets_that_no_door_can_use_keep_it_from_starting(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        planted, descriptors = pass_on({"http": [wrong]})
        daemon = Daemon(tmp_path, planted=planted, descriptors=descriptors)
        await daemon.launch()
        assert await daemon.ended() == 1
    (line,) = daemon.lines
    assert line.startswith("tvix-store: inherited socket 3 is no stream socket")


async def test_systemds_own_tool_starts_it_with_the_first_connection(tmp_path: Path) -> None:
    activate = shutil.which("systemd-socket-activate")
    assert activate is not None, "`make packages` installs systemd"
    daemon = Daemon(tmp_path / "d", daemon={"grpc": "127.0.0.1:0"})
    http, grpc = f"{tmp_path}/http", f"{tmp_path}/grpc"
    command = [activate, "--listen", http, "--listen", grpc, "--fdname", "http:grpc"]
    command += ["-E", f"PYTHONPATH={os.pathsep.join(sys.path)}"]
    command += [sys.executable, "-c", PROGRAM, "daemon", "--compose", str(daemon.compose)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    log = b""
    try:
        async with asyncio.timeout(PATIENCE):
            # It says where it listens, a line each, before it waits.
            while log.count(b"Listening on ") < 2:
                log += await process.stderr.readline()
            connector = aiohttp.UnixConnector(http)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get("http://x/nix-cache-info") as answer,
            ):
                assert answer.status == 200
            process.terminate()
            log += await process.stderr.read()
            assert await process.wait() == 0, log.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert f"http+unix:{http}" in log.decode() and f"grpc+unix://{grpc}" in log.decode()
