"""`tvix-store import` into daemons that die, that evict, or that do not want it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.nar.trees import File, Link, Tree, nar_of, read_in, write_out
from tests.support.command import Done, begin, finish, tvix_store
from tests.support.composed import ComposedDaemon, local_store
from tests.support.daemon import PATIENCE, Daemon
from tvixstore.nix import SecretKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tvixstore.kv.steps import Step

COMPOSITION = '[daemon]\nhttp = "127.0.0.1:0"\n'


def tree(seed: int, files: int = 300) -> Tree:
    """Something of everything that is stored in a way of its own."""
    noise = random.Random(seed)
    return {
        b"folder": {b"%d" % n: File(noise.randbytes(3000), executable=not n % 7)
                    for n in range(files)},
        b"large": File(noise.randbytes(3_000_000)),
        b"link": Link(b"folder/1"),
        b"one-chunk": File(noise.randbytes(200_000)),
    }  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_out(tree(1), os.fsencode(tmp_path / "tree"))
    return tmp_path


def url_of(daemon: Daemon) -> str:
    return f"grpc+unix://{daemon.folder / 'sock'}"


def daemon_in(folder: Path, **settings: str | bool | list[str]) -> ComposedDaemon:
    where = {"grpc": f"unix:{folder / 'daemon' / 'sock'}"}
    return ComposedDaemon(folder / "daemon", local_store(), {**where, **settings})


async def assert_sound(daemon: Daemon) -> None:
    verified = await tvix_store("verify", "--compose", str(daemon.compose), cwd=daemon.folder)
    # A chunk's file that was not in the index yet only takes room.
    assert verified.code == 0 and "all sound" in verified.err, verified
    assert all(line.startswith("stray ") for line in verified.out.splitlines()), verified


async def assert_comes_out(daemon: Daemon, path: str, expected: Tree) -> None:
    process = await begin("nar", "--from", url_of(daemon), path)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert (process.returncode, out == nar_of(expected)) == (0, True), err


@pytest.mark.parametrize(
    ("step", "count"),
    [
        pytest.param("lmdb-changes-made", 1, marks=pytest.mark.slow),
        pytest.param("lmdb-committed", 1, marks=pytest.mark.slow),
        pytest.param("blob-listed", 1, marks=pytest.mark.slow),
        ("chunk-file-renamed", 5),
        # Most of the content is there by then.
        pytest.param("lmdb-committed", 4, marks=pytest.mark.slow),
    ],
)
async def test_a_daemon_that_is_killed_in_mid_import_has_no_half_of_it_and_takes_it_once_more(
    here: Path, step: Step, count: int
) -> None:
    daemon = daemon_in(here)
    await daemon.start(TVIXSTORE_KILL_AT=f"{step}:{count}")
    into = ("import", "-q", "--to", url_of(daemon), "tree")
    broken = await tvix_store(*into, cwd=here)
    assert await daemon.ended() == -signal.SIGKILL
    assert (broken.code, broken.out) == (4, ""), broken
    assert len(broken.err.splitlines()) == 1 and "cannot be reached" in broken.err
    await assert_sound(daemon)
    async with daemon:
        done = await tvix_store(*into, cwd=here)
        assert (done.code, done.err) == (0, "")
        await assert_comes_out(daemon, done.out.strip(), tree(1))
    await assert_sound(daemon)


async def test_a_store_without_room_says_so_and_with_more_takes_it(here: Path) -> None:
    daemon = Daemon(
        here / "daemon",
        daemon={"grpc": f"unix:{here / 'daemon' / 'sock'}"},
        store={"max_size": "2000000", "min_free": "0"},
    )
    into = ("import", "-q", "--to", url_of(daemon), "tree")
    async with daemon:
        done = await tvix_store(*into, cwd=here)
        await daemon.logged("store.full")
    assert (done.code, done.out) == (4, ""), done
    assert "max_size leaves no room for" in done.err and len(done.err.splitlines()) == 1
    await assert_sound(daemon)
    daemon.compose.write_text(daemon.compose.read_text().replace("2000000", "50000000"))
    async with daemon:
        done = await tvix_store(*into, cwd=here)
        assert done.code == 0, done
        await assert_comes_out(daemon, done.out.strip(), tree(1))
    await assert_sound(daemon)


TOKENS = "s3cret-reader read\ns3cret-pusher read,write\n"


@pytest.mark.parametrize(
    ("token", "code", "said"),
    [
        (None, 4, "UNAUTHENTICATED"),
        ("s3cret-reader", 1, "PERMISSION_DENIED: the token lacks the right `write`"),
        ("s3cret-nobody", 4, "UNAUTHENTICATED"),
    ],
)
async def test_who_may_not_write_imports_nothing_and_is_told_why(
    here: Path, token: str | None, code: int, said: str
) -> None:
    (here / "daemon").mkdir()
    (here / "daemon/tokens").write_text(TOKENS)
    settings: dict[str, str | bool] = {
        "tokens_file": "tokens",
        "anonymous_read": False,
        "grpc": "127.0.0.1:0",
    }
    options: tuple[str, ...] = ()
    if token is not None:
        (here / "token").write_text(token)
        options = ("--token-file", "token")
    async with daemon_in(here, **settings) as daemon:
        to = f"grpc+http://{daemon.grpc}"
        done = await tvix_store("import", "-q", "--to", to, *options, "tree", cwd=here)
    assert (done.code, done.out) == (code, ""), done
    assert said in done.err and len(done.err.splitlines()) == 1
    assert "s3cret" not in done.err + daemon.text()


async def test_a_daemon_that_takes_no_writes_says_so(here: Path) -> None:
    async with daemon_in(here, writes=False) as daemon:
        done = await tvix_store("import", "-q", "--to", url_of(daemon), "tree", cwd=here)
    assert (done.code, done.out) == (1, ""), done
    assert "PERMISSION_DENIED" in done.err and len(done.err.splitlines()) == 1


async def test_a_composition_that_is_read_only_says_so(here: Path) -> None:
    text = COMPOSITION
    for kind in ("blobservices", "directoryservices", "pathinfoservices"):
        text += f'[{kind}.root]\ntype = "readonly"\ninner = "disk"\n'
        text += f'[{kind}.disk]\ntype = "local"\npath = "./state"\n'
    (here / "compose.toml").write_text(text)
    done = await tvix_store("import", "-q", "--compose", "compose.toml", "tree", cwd=here)
    assert (done.code, done.out) == (1, ""), done
    assert len(done.err.splitlines()) == 1


async def test_a_daemon_that_wants_signatures_takes_no_import_and_says_so(here: Path) -> None:
    key = str(SecretKey.generate("stranger-1").public_key)
    async with daemon_in(here, require_signature=[key]) as daemon:
        done = await tvix_store("import", "-q", "--to", url_of(daemon), "tree", cwd=here)
    assert (done.code, done.out) == (1, ""), done
    assert "by one of stranger-1 (require_signature)" in done.err
    assert len(done.err.splitlines()) == 1
    await assert_sound(daemon)


async def test_a_folder_too_large_for_a_daemon_is_refused_before_it_is_read(here: Path) -> None:
    many = here / "tree" / "many"
    many.mkdir()
    for number in range(15_000):
        (many / f"{number:0250}").symlink_to("x" * 30)
    (many / "0").write_bytes(b"read first")
    async with daemon_in(here) as daemon:
        done = await tvix_store("import", "-q", "--to", url_of(daemon), "tree", cwd=here)
        assert (done.code, done.out) == (1, ""), done
        told = f"tvix-store: {many} is a folder of 15001 entries, which make a Directory above "
        assert done.err.startswith(f"{told}the 4194304 bytes that the store takes: split it")
        assert len(done.err.splitlines()) == 1
    # Of a composition it is part like any other.
    (here / "compose.toml").write_text(COMPOSITION)
    on = ("--compose", "compose.toml")
    done = await tvix_store("import", "-q", *on, "tree", cwd=here)
    assert done.code == 0, done
    inside = await tvix_store("cat", *on, f"{done.out.strip()}/many/0", cwd=here)
    assert inside == Done(0, "read first", "")


@pytest.mark.slow
async def test_a_folder_of_200_000_files_goes_in_and_out_of_a_composition(here: Path) -> None:
    many = here / "many"
    many.mkdir()
    (many / "0").write_bytes(b"one of many")
    for number in range(1, 200_000):
        # A file has 65,000 names at most.
        os.link(many / str(number // 50_000 * 50_000), many / str(number)) if number % 50_000 else (
            many / str(number)
        ).write_bytes(b"one of many")
    (here / "compose.toml").write_text(COMPOSITION)
    on = ("--compose", "compose.toml")
    done = await tvix_store("import", "-q", *on, "many", cwd=here)
    assert done.code == 0, done
    told = await tvix_store("cat", *on, f"{done.out.strip()}/199999", cwd=here)
    assert told == Done(0, "one of many", "")
    assert (await tvix_store("extract", *on, done.out.strip(), "out", cwd=here)).code == 0
    assert len(os.listdir(here / "out")) == 200_000
    verified = await tvix_store("verify", *on, cwd=here)
    assert (verified.code, verified.out) == (0, "")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
async def test_what_is_interrupted_says_only_that_and_repeated_it_is_whole(
    here: Path, number: signal.Signals
) -> None:
    interrupted = Done(130, "", "tvix-store: interrupted\n")
    async with daemon_in(here) as daemon:
        # 4 MB are on their way; one of them is let through.
        into = ("import", "-q", "--to", f"grpc+unix://{here / 'narrow'}", "tree")
        async with narrow(daemon, here / "narrow", up=1_000_000) as reached:
            process = await begin(*into, cwd=here)
            await reached.wait()
            process.send_signal(number)
            assert await finish(process) == interrupted
        done = await tvix_store("import", "-q", "--to", url_of(daemon), "tree", cwd=here)
        assert done.code == 0, done
        path = done.out.strip()
        async with narrow(daemon, here / "down", down=1_000_000) as reached:
            process = await begin(
                *("extract", "-q", "--from", f"grpc+unix://{here / 'down'}", path, "out"),
                cwd=here,
            )
            await reached.wait()
            process.send_signal(number)
            assert await finish(process) == interrupted
        out = ("extract", "-q", "--from", url_of(daemon), path, "out")
        assert (await tvix_store(*out, cwd=here)).code == 0
        assert read_in(os.fsencode(here / "out")) == tree(1)
    await assert_sound(daemon)


@asynccontextmanager
async def narrow(
    daemon: Daemon, path: Path, *, up: int = 1 << 40, down: int = 1 << 40
) -> AsyncIterator[asyncio.Event]:
    """Another socket of the daemon, through which so many bytes go; set when it is blocked."""
    reached = asyncio.Event()

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int
    ) -> None:
        while data := await reader.read(min(left, 1 << 16)):
            writer.write(data)
            await writer.drain()
            left -= len(data)
            if not left:
                reached.set()
                await asyncio.Event().wait()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(daemon.folder / "sock")
        ways = [
            asyncio.create_task(pass_on(reader, far_writer, up)),
            asyncio.create_task(pass_on(far_reader, writer, down)),
        ]
        try:
            await gone.wait()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, far_writer):
                end.transport.abort()

    gone = asyncio.Event()
    serving: list[asyncio.Task[None]] = []
    server = await asyncio.start_unix_server(
        lambda *ends: serving.append(asyncio.create_task(serve(*ends))), path
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield reached
    finally:
        server.close()
        gone.set()
        await asyncio.gather(*serving)
