"""`import`, `nar-hash`, `nar`, `ls`, `cat`, `extract` and `add-nar` as commands: on a composition,
on a daemon and on a remote tier, what they print where, and how they exit."""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import signal
import sys
from pathlib import Path

import pytest

import tvixstore
from tests.filesystem.places import LARGE, sha256
from tests.library.stores import LOCAL
from tests.nar.trees import File, Link, Tree, nar_of, read_in, write_out
from tests.pathinfo.samples import secret_key
from tests.support.caches import make_path
from tests.support.command import Done, begin, environment, finish, leave, tvix_store
from tests.support.composed import ComposedDaemon, graph_text, local_store, tier_over
from tests.support.daemon import PATIENCE, PROGRAM
from tests.support.until import until
from tvixstore.castore import Digest
from tvixstore.nix import ContentAddress, NixHash

TREE: Tree = {
    b"bin": {b"run": File(b"#!/bin/sh\n", True), b"sh": Link(b"run")},
    b"large": File(LARGE),
    b"page": File(b"0123456789"),
}
NAR = nar_of(TREE)
PATH = str(ContentAddress("recursive", NixHash("sha256", sha256(NAR))).store_path("tree"))
LISTING = """\
dr-xr-xr-x                    0 ./bin
-r-xr-xr-x                   10 ./bin/run
lrwxrwxrwx                    0 ./bin/sh -> run
-r--r--r--              2560000 ./large
-r--r--r--                   10 ./page
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_out(TREE, os.fsencode(tmp_path / "tree"))
    return tmp_path / "tree"


async def binary(*arguments: str, cwd: Path) -> tuple[int, bytes, str]:
    """Runs it, whose output is no text."""
    process = await begin(*arguments, cwd=cwd)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out, err.decode()


async def check_in_and_out(folder: Path, *where: str, to: str, source: str) -> None:
    """`where` names the store; without it, `to` and `source` are the options that do."""
    into, out_of = where or ("--to", to), where or ("--from", source)
    assert await tvix_store("import", *into, "tree", cwd=folder) == Done(0, f"{PATH}\n", "")
    assert await binary("nar", *out_of, PATH, cwd=folder) == (0, NAR, "")
    assert await tvix_store("ls", "-lR", *out_of, PATH, cwd=folder) == Done(0, LISTING, "")
    cat = ("cat", *out_of, f"{PATH}/page", "--offset", "2", "--length", "3")
    assert await tvix_store(*cat, cwd=folder) == Done(0, "234", "")
    assert await tvix_store("extract", *out_of, PATH, "out", cwd=folder) == Done(0, "", "")
    assert read_in(os.fsencode(folder / "out")) == TREE


async def test_trees_go_in_and_out_of_a_composition(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    await check_in_and_out(tmp_path, "--compose", "compose.toml", to="", source="")
    done = await tvix_store("verify", "--compose", "compose.toml", cwd=tmp_path)
    assert (done.code, done.out) == (0, "")


async def test_trees_go_in_and_out_of_a_daemon_and_through_a_remote_tier(
    tmp_path: Path, tree: Path
) -> None:
    daemon = {"grpc": f"unix:{tmp_path / 'sock'}"}
    async with ComposedDaemon(tmp_path / "far", local_store(), daemon):
        url = f"grpc+unix://{tmp_path / 'sock'}"
        await check_in_and_out(tmp_path, to=url, source=url)
        # A tier that has nothing yet reads the same there, and what is put into it stays in it.
        (tmp_path / "near.toml").write_text(graph_text(tier_over(url)))
        near = ("--compose", "near.toml")
        assert await tvix_store("ls", "-lR", *near, PATH, cwd=tmp_path) == Done(0, LISTING, "")
        page = ("cat", *near, f"{PATH}/page")
        assert await tvix_store(*page, cwd=tmp_path) == Done(0, "0123456789", "")
        # Nothing but that file has come.
        async with tvixstore.loads(LOCAL, folder=tmp_path) as store:
            assert await store.blobs.has(Digest.of(b"0123456789"))
            assert not await store.blobs.has(Digest.of(LARGE))
        assert (await binary("nar", *near, PATH, cwd=tmp_path))[1] == NAR
        done = await tvix_store("import", *near, "--name", "other", "tree", cwd=tmp_path)
        assert done.code == 0, done.err
        other = done.out.strip()
        assert (await tvix_store("ls", "--from", url, other, cwd=tmp_path)).code == 3
        assert (await binary("nar", *near, other, cwd=tmp_path))[1] == NAR


async def test_the_daemon_of_the_compose_file_is_the_default(tmp_path: Path, tree: Path) -> None:
    text = f'[daemon]\nhttp = "127.0.0.1:0"\ngrpc = "unix:{tmp_path / "sock"}"\n'
    (tmp_path / "compose.toml").write_text(text)
    done = await tvix_store("import", "tree", cwd=tmp_path)
    assert (done.code, done.out) == (4, "")
    assert "cannot be reached" in done.err and "`tvix-store daemon` starts one" in done.err


async def test_paths_are_printed_in_the_order_given(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    for name in ("z", "a"):
        (tmp_path / name).write_text(name)
    on = ("--compose", "compose.toml")
    done = await tvix_store("import", *on, "tree", "z", "a", "tree/bin", cwd=tmp_path)
    names = [line.partition("-")[2] for line in done.out.splitlines()]
    assert names == ["tree", "z", "a", "bin"]
    flat = await tvix_store("import", *on, "--flat", "--json", "--name", "n", "z", cwd=tmp_path)
    told = json.loads(flat.out)
    address = ContentAddress("flat", NixHash("sha256", sha256(b"z")))
    assert [told[0][key] for key in ("source", "path", "ca", "nar_size")] == [
        *("z", str(address.store_path("n")), str(address), len(nar_of(File(b"z"))))
    ]
    both = await tvix_store("import", *on, "--name", "n", "z", "a", cwd=tmp_path)
    assert both.code == 2 and "--name is for one PATH" in both.err


async def test_what_cannot_be_imported_is_named(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    os.mkfifo(tree / "bin/pipe")
    for path, what in [
        ("tree", f"{tree}/bin/pipe is a fifo, which no store path can hold"),
        ("none", f"{tmp_path}/none cannot be read: No such file or directory"),
    ]:
        done = await tvix_store("import", "--compose", "compose.toml", path, cwd=tmp_path)
        assert done == Done(1, "", f"tvix-store: {what}\n")
    done = await tvix_store("info", "--from", "compose.toml", PATH, cwd=tmp_path)
    assert done.code == 3, "no path info of it is there"


async def test_a_hash_is_printed_in_the_form_that_is_wanted(tmp_path: Path, tree: Path) -> None:
    digest = NixHash("sha256", sha256(NAR))
    done = await tvix_store("nar-hash", "--base32", "tree", "tree/page", cwd=tmp_path)
    page = NixHash("sha256", sha256(nar_of(File(b"0123456789"))))
    assert done == Done(0, f"{digest}\n{page}\n".replace("sha256:", ""), "")
    assert (await tvix_store("nar-hash", "--base16", "tree", cwd=tmp_path)).out == (
        f"{sha256(NAR).hex()}\n"
    )
    sri = await tvix_store("nar-hash", "tree", cwd=tmp_path)
    assert NixHash.parse(sri.out.strip()) == digest
    assert (await tvix_store("nar-hash", "--sri", "--base16", "tree", cwd=tmp_path)).code == 2


async def test_a_nar_becomes_the_path_that_its_narinfo_says(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    made = make_path("made", secret_key("cache-1"), TREE)
    (tmp_path / "made.narinfo").write_text(str(made.narinfo))
    (tmp_path / "made.nar").write_bytes(made.nar)
    (tmp_path / "made.nar.xz").write_bytes(lzma.compress(made.nar, preset=0))
    on = ("--compose", "compose.toml")
    for file in ("made.nar", "made.nar.xz"):
        done = await tvix_store("add-nar", *on, file, "--narinfo", "made.narinfo", cwd=tmp_path)
        assert done == Done(0, f"{made.store_path}\n", "")
    told = await tvix_store("info", "--json", "--from", "compose.toml", made.digits, cwd=tmp_path)
    (info,) = json.loads(told.out)
    assert info["signatures"] == [str(each) for each in made.narinfo.signatures]
    # By its content, from standard input, with something that it refers to.
    process = await begin(
        *("add-nar", *on, "-", "--name", "tree", "--references", made.store_path), cwd=tmp_path
    )
    done = await finish(process, NAR)
    address = ContentAddress("recursive", NixHash("sha256", sha256(NAR)))
    store_path = address.store_path("tree", [made.narinfo.store_path])
    assert done == Done(0, f"{store_path}\n", "")
    # Not what the narinfo is of, or no NAR at all.
    (tmp_path / "other.nar").write_bytes(nar_of(File(b"other")))
    (tmp_path / "none.nar").write_bytes(b"no NAR")
    done = await tvix_store("add-nar", *on, "other.nar", "--narinfo", "made.narinfo", cwd=tmp_path)
    assert done.code == 1 and "other.nar has a NAR of" in done.err
    done = await tvix_store("add-nar", *on, "none.nar", "--name", "x", cwd=tmp_path)
    assert done.code == 1 and "is no NAR" in done.err
    done = await tvix_store("add-nar", *on, "other.nar", cwd=tmp_path)
    assert done.code == 2 and "name one of --narinfo, --path and --name" in done.err


async def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    on = ("--compose", "compose.toml")
    await tvix_store("import", *on, "tree", cwd=tmp_path)
    process = await begin("cat", *on, f"{PATH}/large", cwd=tmp_path)
    assert await leave(process) == (141, "")


@pytest.mark.parametrize("line", ["import --json tree", "info --json", "nar"])
async def test_whatever_a_command_prints_may_find_nobody(
    tmp_path: Path, tree: Path, line: str
) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    on = ("--compose", "compose.toml")
    await tvix_store("import", *on, "tree", cwd=tmp_path)
    path = () if line.startswith("import") else (PATH,)
    theirs, ours = os.pipe()
    os.close(theirs)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *line.split(), *on, *path),
        stdout=ours,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    os.close(ours)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("line", ["import --json tree", "ls -R", "nar", "nar-hash tree"])
async def test_output_that_finds_no_room_is_an_error_in_one_line(
    tmp_path: Path, tree: Path, line: str
) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    on = () if "nar-hash" in line else ("--compose", "compose.toml")
    await tvix_store("import", "--compose", "compose.toml", "tree", cwd=tmp_path)
    path = () if line.endswith("tree") else (PATH,)
    full = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *line.split(), *on, *path),
        stdout=full,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    os.close(full)
    _, err = await process.communicate()
    assert process.returncode == 1
    (told,) = err.decode().splitlines()
    assert told.endswith("cannot be written: No space left on device")


async def test_a_nar_is_nothing_for_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from tvixstore.cli import main; main()", "nar", PATH),
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
    )
    os.close(theirs)
    _, err = await process.communicate()
    os.close(ours)
    assert process.returncode == 2 and b"is nothing for a terminal" in err


async def test_a_binary_cache_is_no_place_for_trees(tmp_path: Path, tree: Path) -> None:
    for command in (["import", "--to", "file:///x", "tree"], ["ls", "--from", "http://x", PATH]):
        done = await tvix_store(*command, cwd=tmp_path)
        assert done.code == 1 and "which keeps NARs and no trees" in done.err


async def test_interrupted_and_called_again_an_import_is_whole(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    tree: Tree = {b"%d" % n: File(LARGE[:40_000] + b"%d" % n) for n in range(1500)}
    write_out(tree, os.fsencode(tmp_path / "tree"))
    on = ("--compose", "compose.toml")
    for number in (signal.SIGINT, signal.SIGKILL):
        process = await begin("import", *on, "tree", cwd=tmp_path)
        await until((tmp_path / "state/index/data.mdb").exists, PATIENCE)
        process.send_signal(number)
        ended = await finish(process)
        assert ended.code in (130, -signal.SIGKILL) and ended.out == ""
    done = await tvix_store("import", *on, "tree", cwd=tmp_path)
    assert done.code == 0
    nar = (await binary("nar", *on, done.out.strip(), cwd=tmp_path))[1]
    assert nar == nar_of(tree)
    verified = await tvix_store("verify", *on, cwd=tmp_path)
    assert (verified.code, verified.out) == (0, "")
