"""`copy` and `info` as commands: what they print where, and how they exit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.pathinfo.samples import secret_key
from tests.support.caches import MadePath, files_of, make_path
from tests.support.command import Done, begin, environment, finish, tvix_store
from tests.support.daemon import PATIENCE, PROGRAM
from tvixstore.cli.app import app
from tvixstore.nix import nixbase32

KEY = secret_key("cache-1")
# Longer than what is held in memory of one that is on its way.
LEAF = make_path("leaf", KEY, size=6_000_000)
TOP = make_path("top", KEY, references=[LEAF.narinfo.store_path])
KEYS = ("--public-keys", str(KEY.public_key))
STRANGERS = ("--public-keys", str(secret_key("stranger-1").public_key))
# Nobody listens there: the port is reserved.
DEAD = "grpc+http://127.0.0.1:1"


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """The URL of a cache with both paths."""
    return write_cache(tmp_path / "cache", LEAF, TOP)


def write_cache(folder: Path, *paths: MadePath) -> str:
    for target, data in files_of(paths).items():
        file = folder / target[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return f"file://{folder}"


async def copy(cache: str, tmp_path: Path, *arguments: str) -> Done:
    return await tvix_store(
        "copy", "--from", cache, "--to", f"file://{tmp_path / 'out'}", *arguments, cwd=tmp_path
    )


async def test_elsewhere_than_on_a_terminal_it_prints_a_line_a_path(
    tmp_path: Path, cache: str
) -> None:
    done = await copy(cache, tmp_path, *KEYS, TOP.store_path)
    assert (done.code, done.out) == (0, "")
    *lines, last = done.err.splitlines()
    assert lines == [f"copied {path.store_path} ({len(path.nar)} bytes)" for path in (LEAF, TOP)]
    size = len(LEAF.nar) + len(TOP.nar)
    assert last.startswith(f"2 copied, 0 were there: {size / 1e6:.1f} MB of NARs, ")
    quiet = await copy(cache, tmp_path, *KEYS, "--quiet", TOP.digits)
    assert quiet == Done(0, "", "")


async def test_json_says_what_was_done_with_each_path(tmp_path: Path, cache: str) -> None:
    await copy(cache, tmp_path, *KEYS, "-q", LEAF.store_path)
    done = await copy(
        cache, tmp_path, *KEYS, "-q", "--json", "-j", "2", TOP.narinfo.store_path.base_name
    )
    told = json.loads(done.out)
    assert done.err == ""
    assert isinstance(told.pop("seconds"), float)
    assert told == {
        "from": cache,
        "to": f"file://{tmp_path / 'out'}",
        "copied": 1,
        "skipped": 1,
        "nar_bytes": len(TOP.nar),
        "sent_bytes": len(TOP.nar),
        "paths": [
            {"path": LEAF.store_path, "nar_size": len(LEAF.nar), "outcome": "skipped"},
            {"path": TOP.store_path, "nar_size": len(TOP.nar), "outcome": "copied"},
        ],
    }


async def test_what_goes_wrong_has_its_exit_code(tmp_path: Path, cache: str) -> None:
    absent = nixbase32.encode(b"\1" * 20)
    lying = write_cache(tmp_path / "lying", MadePath(TOP.narinfo, TOP.nar[:-1] + b"x"), LEAF)
    cases = [
        (
            1,
            ("--from", cache, "--to", "file:///dev/null/x", *KEYS),
            "/dev/null/x/nar cannot be made",
        ),
        (1, ("--from", cache, "--to", DEAD), "nobody is known whose signatures"),
        (1, ("--from", "memory://", "--to", cache), "cannot be copied from or to"),
        (1, ("--from", "absent.toml", "--to", cache), "absent.toml: cannot be read"),
        (4, ("--from", DEAD, "--to", cache), "cannot be reached"),
        (5, ("--from", lying, "--to", f"file://{tmp_path}/l", *KEYS), "NAR"),
        (5, ("--from", cache, "--to", f"file://{tmp_path}/u", *STRANGERS), "no trusted signature"),
    ]
    for code, arguments, said in cases:
        done = await tvix_store("copy", *arguments, TOP.store_path, cwd=tmp_path)
        assert done.code == code, (arguments, done)
        assert said in done.err
        assert "Traceback" not in done.err
    gone = await copy(cache, tmp_path, *KEYS, "--json", absent)
    assert gone.code == 3
    assert gone.err == f"tvix-store: {absent} is not in {cache}\n"
    assert json.loads(gone.out)["error"] == f"{absent} is not in {cache}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--from file:///x", "name store paths"),
        ("/nix/store/x", "name --from or --to"),
        ("--from file:///x {top}/bin/x", "inside of a store path"),
        ("--from file:///x --public-keys x:y {top}", "--public-keys"),
        ("--from file:///x --closure-info absent", "absent cannot be read"),
        ("--from file:///x --compression lzma {top}", "lzma"),
        ("--from file:///x -j 0 {top}", "greater than or equal to 1"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(line: str, said: str) -> None:
    arguments = line.format(top=TOP.store_path).split()
    done = CliRunner().invoke(app, ["copy", *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


async def test_the_keys_of_the_compose_file_are_those_of_the_caches_in_it(
    tmp_path: Path, cache: str
) -> None:
    (tmp_path / "compose.toml").write_text(
        f'[[substituters]]\nurl = "{cache}/"\npublic_keys = ["{KEY.public_key}"]\n'
    )
    assert (await copy(cache, tmp_path, LEAF.digits)).code == 0
    other = write_cache(tmp_path / "other", LEAF, TOP)
    assert (await copy(other, tmp_path, TOP.digits)).code == 1
    assert (await copy(other, tmp_path, TOP.digits, "--no-check-sigs")).code == 0


async def test_on_a_terminal_there_are_bars_and_then_the_sum(tmp_path: Path, cache: str) -> None:
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, "copy", "--from", cache, *KEYS),
            *("--to", f"file://{tmp_path / 'out'}", TOP.store_path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=theirs,
            cwd=tmp_path,
            env={**environment(), "TERM": "xterm", "COLUMNS": "120"},
        )
    finally:
        os.close(theirs)
    reading = asyncio.create_task(asyncio.to_thread(read_terminal, ours))
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
        shown = await reading
    assert (process.returncode, out) == (0, b"")
    assert "2/2 paths" in shown
    assert "copied /nix/store" not in shown
    assert shown.rstrip().splitlines()[-1].lstrip("\x1b[2K").find("2 copied, 0 were there") >= 0


def read_terminal(descriptor: int) -> str:
    """All that is written to the other end, until nobody has it open any more."""
    parts = []
    # That is how Linux says that it is over.
    with contextlib.suppress(OSError):
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


async def test_info_tells_what_a_cache_says(tmp_path: Path, cache: str) -> None:
    done = await tvix_store(
        "info", "--from", cache, "-S", TOP.store_path, LEAF.digits, cwd=tmp_path
    )
    assert (done.code, done.err) == (0, "")
    first, second = done.out.split("\n\n")
    assert f"path          {TOP.store_path}\n" in first
    assert f"sha256:{nixbase32.encode(TOP.narinfo.nar_sha256)}\n" in first
    assert f"closure size  {len(TOP.nar) + len(LEAF.nar)} bytes\n" in first
    assert f"references    {LEAF.store_path}\n" in first
    assert "signed by     cache-1\n" in first + "\n"
    assert "content" not in first
    assert f"path          {LEAF.store_path}\n" in second


async def test_info_of_an_absent_path_exits_with_3_and_tells_of_the_others(
    tmp_path: Path, cache: str
) -> None:
    absent = nixbase32.encode(b"\1" * 20)
    done = await tvix_store("info", "--from", cache, "--json", absent, TOP.digits, cwd=tmp_path)
    assert done.code == 3
    assert done.err == f"tvix-store: {absent} is not in {cache}\n"
    (told,) = json.loads(done.out)
    assert told["path"] == TOP.store_path
    assert told["references"] == [LEAF.store_path]
    assert told["root"] is told["content"] is told["deriver"] is None
    unknown = await tvix_store("info", "--from", DEAD, TOP.digits, cwd=tmp_path)
    assert unknown.code == 4


async def test_info_of_a_composition_tells_of_content_and_root(tmp_path: Path, cache: str) -> None:
    (tmp_path / "own.toml").write_text('[daemon]\nstate = "./own"\n')
    copied = await tvix_store(
        "copy", "--from", cache, "--to", "own.toml", *KEYS, LEAF.digits, cwd=tmp_path
    )
    assert copied.code == 0, copied
    done = await tvix_store("info", "--compose", "own.toml", "--json", LEAF.digits, cwd=tmp_path)
    (told,) = json.loads(done.out)
    assert told["content"] is True
    assert told["root"]["type"] == "file"
    assert told["root"]["size"] == 6_000_000


async def test_being_interrupted_exits_with_130(tmp_path: Path, cache: str) -> None:
    fifo = tmp_path / "list"
    os.mkfifo(fifo)
    # Waits for a list that nobody writes, before anything else.
    process = await begin("copy", "--from", cache, "--closure-info", str(fifo), cwd=tmp_path)
    writer = await asyncio.to_thread(os.open, fifo, os.O_WRONLY)
    try:
        process.send_signal(2)
        done = await finish(process)
    finally:
        os.close(writer)
    assert done.code == 130
    assert "Traceback" not in done.err
