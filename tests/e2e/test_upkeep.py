"""`tvix-store pin|unpin|pins|verify`, with a daemon and without, and the real client afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shutil
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.nar.trees import File
from tests.support.caches import MadePath, make_path
from tests.support.daemon import PATIENCE, PROGRAM, Daemon, substituter
from tests.upkeep import damages
from tests.upkeep.house import House, tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient


@dataclass(frozen=True)
class Done:
    code: int
    output: str
    errors: str

    def objects(self) -> list[dict[str, Any]]:
        """A JSON object a line."""
        return [json.loads(line) for line in self.output.splitlines()]


class Place:
    """A house, a daemon on it that answers on a unix socket, and commands in its folder."""

    def __init__(self, folder: Path, upstreams: Upstreams, planted: str = "") -> None:
        key = upstreams.workshop.secret_key
        library = make_path("library", key, tree(1))
        app = make_path("app", key, tree(2), references=[library.narinfo.store_path])
        other = make_path("other", key, File(b"other"))
        self.paths: list[MadePath] = [library, app, other]
        self.house = House(folder, self.paths)
        self.daemon = Daemon(
            folder,
            [substituter(f"file://{self.house.upstream}", upstreams.key)],
            daemon={"grpc": "unix:./socket", "negative_ttl": "0s"},
            planted=planted,
        )

    @property
    def store_paths(self) -> list[str]:
        return [path.store_path for path in self.paths]

    async def begin(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, *arguments),
            cwd=self.daemon.folder,
            env=environment("dumb"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> Done:
        process = await self.begin(*arguments)
        async with asyncio.timeout(PATIENCE):
            output, errors = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in errors, errors.decode()
        return Done(process.returncode, output.decode(), errors.decode())


def environment(terminal: str) -> dict[str, str]:
    """What a command finds in a test: nothing of the one who runs it."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": terminal}


async def test_a_store_is_verified_damaged_repaired_and_serves_again(
    tmp_path: Path, upstreams: Upstreams, client: NixClient, second_client: NixClient
) -> None:
    place = Place(tmp_path / "tvix", upstreams)
    async with place.daemon as daemon:
        await client.copy(daemon.url, *place.store_paths)
        await daemon.settled()
        clean = await place.run("verify")
        assert (clean.code, clean.output) == (0, ""), clean
        assert "3 paths, 6 Directories" in clean.errors and "all sound" in clean.errors

    planted = [
        damages.flip_in_file,
        damages.flip_in_directory,
        damages.flip_in_path_info,
        damages.flip_in_remembered,
        damages.truncate_access,
        damages.file_beside_an_inline_chunk,
        damages.dangling_directory,
        damages.flip_in_pin,
    ]
    # Those that need the Directories to find their way come first.
    for plant in planted:
        await plant(place.house)

    async with place.daemon as daemon:
        found = await place.run("verify", "--json")
        assert found.code == 5
        *findings, summary = found.objects()
        kinds = {"chunk", "directory", "path", "remembered", "access", "stray", "pin"}
        # What is done to rows behind its back leaves counts behind that do not add up.
        assert {finding["kind"] for finding in findings} - {"counts"} == kinds
        assert {finding["outcome"] for finding in findings} == {"found"}
        assert summary["event"] == "summary" and summary["strays"] == 1
        assert summary["damaged"] == summary["unrepaired"] == len(findings) - 1

        repaired = await place.run("verify", "--repair")
        assert repaired.code == 0, repaired
        mended = {line.partition(" ")[0] for line in repaired.output.splitlines()}
        # A blob is incomplete once a chunk of it is dropped.
        assert mended - {"counts", "blob"} == kinds
        assert "[refetched]" in repaired.output and "repaired" in repaired.errors
        assert (await place.run("verify")).output == ""
        assert (await place.run("verify", place.store_paths[0])).code == 0

        # From now on there is nobody else to ask.
        shutil.rmtree(place.house.upstream)
        await second_client.copy(daemon.url, *place.store_paths)
        await second_client.verify()


async def test_what_nobody_has_any_more_is_absent_and_the_command_says_so(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    place = Place(tmp_path / "tvix", upstreams)
    async with place.daemon as daemon:
        await client.copy(daemon.url, *place.store_paths)
        await daemon.settled()
    await damages.flip_in_file(place.house)
    shutil.rmtree(place.house.upstream)
    place.house.upstream.mkdir()
    (place.house.upstream / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    library, app, other = place.paths
    # Without a daemon: the command opens the store itself.
    lost = await place.run("verify", "--repair", "--compose", "compose.toml")
    assert lost.code == 5 and "[lost]" in lost.output and "no substituter has it" in lost.output
    async with place.daemon as daemon:
        again = await place.run("verify")
        assert (again.code, again.output) == (0, "")
        assert (await daemon.get(library.narinfo_target)).status == 404
        for path in (app, other):
            assert (await daemon.get(await daemon.nar_target(path.digits))).body == path.nar


async def test_pins_outlast_the_daemon_and_the_commands_work_without_it(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    place = Place(tmp_path / "tvix", upstreams)
    library, app, _ = place.store_paths
    absent = "/nix/store/00000000000000000000000000000000-absent"
    async with place.daemon:
        pinned = await place.run("pin", app, "--comment", "release 1")
        assert pinned.code == 0, pinned
        assert pinned.output.startswith(f"pinned {app}: 2 paths, ")
        assert "2 fetched" in pinned.output
        gone = await place.run("pin", absent, library)
        assert gone.code == 3 and f"{absent} is not here" in gone.errors
        assert f"pinned {library}" in gone.output
        nobody = await place.run("verify", absent)
        assert (nobody.code, nobody.output) == (3, "") and "does not have" in nobody.errors
        locked = await place.run("pins", "--compose", "compose.toml")
        assert locked.code == 1 and "leave out --compose" in locked.errors
    stopped = await place.run("pins")
    assert stopped.code == 4 and "cannot be reached" in stopped.errors
    alone = await place.run("unpin", library, "--compose", "compose.toml")
    assert (alone.code, alone.output) == (0, f"unpinned {library}\n")
    async with place.daemon:
        (told,) = json.loads((await place.run("pins", "--json")).output)
        assert told["path"] == app and told["comment"] == "release 1"
        assert told["closure_paths"] == 2 and told["missing"] == []
        assert told["closure_size"] == sum(len(path.nar) for path in place.paths[:2])
        (line,) = (await place.run("pins")).output.splitlines()
        assert line.startswith(app) and line.endswith("release 1")
        again = await place.run("unpin", library)
        assert again.code == 3 and f"{library} was not pinned" in again.errors


@pytest.mark.parametrize(
    "line",
    [
        "pin nonsense",
        "unpin /nix/store/00000000000000000000000000000000-x/bin",
        *(
            pytest.param(line, marks=pytest.mark.slow)
            for line in ("pin", "pin --comment a\nb 0", "verify /nix/store", "pins x")
        ),
    ],
)
async def test_wrong_usage_is_said_before_anybody_is_asked(
    tmp_path: Path, upstreams: Upstreams, line: str
) -> None:
    place = Place(tmp_path / "tvix", upstreams)
    done = await place.run(*line.split(" "))
    assert done.code == 2 and "Usage: tvix-store" in done.errors


ENDLESS = """
import asyncio
from tvixstore.upkeep.content import BlobScrub
async def endless(self):
    await asyncio.Event().wait()
BlobScrub._lists = endless
"""


async def test_an_interrupted_check_ends_at_the_daemon_too(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    place = Place(tmp_path / "tvix", upstreams, planted=ENDLESS)
    async with place.daemon:
        # The second one would be refused if the first went on.
        for _ in range(2):
            process = await place.begin("verify")
            assert process.stderr is not None
            line = await asyncio.wait_for(process.stderr.readline(), PATIENCE)
            assert line.startswith(b"verify: "), line
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                await process.communicate()
            assert process.returncode == 130
        # And a daemon that is told to stop waits for none.
        process = await place.begin("verify")
        assert process.stderr is not None
        await asyncio.wait_for(process.stderr.readline(), PATIENCE)
    async with asyncio.timeout(PATIENCE):
        _, errors = await process.communicate()
    assert process.returncode == 4 and b"shutting down" in errors


async def test_on_a_terminal_there_is_a_bar(tmp_path: Path, upstreams: Upstreams) -> None:
    place = Place(tmp_path / "tvix", upstreams)
    await place.house.fill()
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, "verify", "--compose", "compose.toml"),
            cwd=place.daemon.folder,
            env=environment("xterm"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=theirs,
        )
        os.close(theirs)
        shown = await asyncio.to_thread(_read_all, ours)
        assert await process.wait() == 0
    finally:
        os.close(ours)
    assert "verify: " in shown and "all sound" in shown


def _read_all(descriptor: int) -> str:
    """What a terminal was sent, until nobody has it open any more."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode(errors="replace")
