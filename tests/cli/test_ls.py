"""`ls` and `cat` as commands: as JSON, on a terminal, and on what is no folder or no file."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from tests.nar.trees import File, Link, Tree, trees, write_out
from tests.support.command import Done, begin, environment, leave, tvix_store
from tests.support.daemon import PATIENCE, PROGRAM
from tvixstore.castore import EMPTY_DIGEST, DirectoryNode, FileNode, Node, SymlinkNode
from tvixstore.cli.listed import Document

if TYPE_CHECKING:
    from tests.filesystem.places import Nix

ON = ("--compose", "compose.toml")
# What a terminal would obey, or a script would take for two names.
EVIL = b"\x1b]0;evil\x07\nx\x9b"
TREE: Tree = {
    b"bin": {b"run": File(b"#!/bin/sh\n", True), b"sh": Link(b"run")},
    b"empty": {},
    b"link": Link(b"bin"),
    b"page": File(b"0123456789"),
    'é"\\'.encode(): File(b""),
    b"\xff": {EVIL: Link(EVIL)},
}
LISTED: dict[str, dict[str, Any]] = {
    "bin": {
        "type": "directory",
        "entries": {
            "run": {"type": "regular", "size": 10, "executable": True},
            "sh": {"type": "symlink", "target": "run"},
        },
    },
    "empty": {"type": "directory", "entries": {}},
    "link": {"type": "symlink", "target": "bin"},
    "page": {"type": "regular", "size": 10},
    'é"\\': {"type": "regular", "size": 0},
    "\udcff": {
        "type": "directory",
        "entries": {os.fsdecode(EVIL): {"type": "symlink", "target": os.fsdecode(EVIL)}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a composition, which nobody changes."""
    made = tmp_path_factory.mktemp("listed")
    (made / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    write_out(TREE, os.fsencode(made / "tree"))
    write_out(File(b"0123456789", True), os.fsencode(made / "file"))
    write_out(Link(b"tree/bin"), os.fsencode(made / "link"))
    return made


@pytest.fixture(scope="module")
def paths(folder: Path) -> list[str]:
    """Of `TREE`, of a file, and of a link."""
    command = [sys.executable, "-c", PROGRAM, "import", *ON, "tree", "file", "link"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


async def listed(folder: Path, *arguments: str) -> Any:
    done = await tvix_store("ls", *ON, "--json", *arguments, cwd=folder)
    assert (done.code, done.err) == (0, "")
    # A terminal obeys none of it.
    assert done.out.isascii() and done.out[:-1].isprintable() and done.out.endswith("}\n")
    return json.loads(done.out)


async def test_a_listing_is_one_json_document(folder: Path, paths: list[str]) -> None:
    tree = paths[0]
    assert await listed(folder, "-R", tree) == {"type": "directory", "entries": LISTED}
    shallow = {name: {**node} for name, node in LISTED.items()}
    for node in shallow.values():
        node.pop("entries", None)
    assert await listed(folder, tree) == {"type": "directory", "entries": shallow}
    (evil,) = (await listed(folder, f"{tree}/" + os.fsdecode(b"\xff")))["entries"]
    assert os.fsencode(evil) == EVIL
    absent = await tvix_store("ls", *ON, "--json", f"{tree}/none", cwd=folder)
    assert (absent.code, absent.out) == (3, "")


@pytest.mark.nix
async def test_nix_lists_it_likewise(nix: Nix, folder: Path, paths: list[str]) -> None:
    store = ("--store", folder / "store")
    (path,) = nix.run("nix-store", *store, "--add", folder / "tree").decode().split()
    assert path == paths[0]
    # Below what it would write without escaping.
    ls = ("nix", "store", "ls", *store, "--json", "--recursive", f"{path}/bin")
    assert json.loads(nix.run(*ls)) == await listed(folder, "-R", f"{path}/bin")


async def test_import_tells_of_any_file_in_json(folder: Path, paths: list[str]) -> None:
    name = os.fsdecode(b"\xff\x1b")
    write_out(File(b""), os.fsencode(folder / name))
    done = await tvix_store("import", *ON, "--json", "--name", "n", name, cwd=folder)
    assert done.out.isascii() and done.out[:-1].isprintable()
    assert json.loads(done.out)[0]["source"] == name


async def on_terminal(folder: Path, *arguments: str) -> bytes:
    """What a terminal gets of it."""
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *arguments),
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment(),
    )
    os.close(theirs)
    got = b""
    try:
        # It is little, and kept until it is read.
        await asyncio.wait_for(process.wait(), PATIENCE)
        while data := await asyncio.to_thread(os.read, ours, 1 << 16):
            got += data
    except OSError:
        pass  # Its end, on Linux.
    finally:
        os.close(ours)
    return got.replace(b"\r\n", b"\n")


async def test_a_terminal_gets_nothing_that_it_would_obey(folder: Path, paths: list[str]) -> None:
    path = f"{paths[0]}/" + os.fsdecode(b"\xff")
    evil = rb"\x1b]0;evil\x07\nx\x9b"
    assert await on_terminal(folder, "ls", "-l", *ON, path) == (
        b"lrwxrwxrwx                    0 ./" + evil + b" -> " + evil + b"\n"
    )
    # What is said of it on standard error, too, wherever that leads.
    inside = f"{path}/{os.fsdecode(EVIL)}"
    for command in (["cat", *ON, inside], ["ls", f"{inside}/.."]):
        said = await on_terminal(folder, *command)
        assert b"evil" in said and b"\x1b" not in said.replace(b"\x1b[", b"")
    # A pipe gets it to the byte.
    process = await begin("ls", *ON, path, cwd=folder)
    out, _ = await process.communicate()
    assert out == b"./" + EVIL + b"\n"


async def test_what_is_no_folder_is_listed_by_its_name(folder: Path, paths: list[str]) -> None:
    tree, file, _ = paths
    for path, line in [
        (file, f"-r-xr-xr-x                   10 {Path(file).name}\n"),
        # Slashes too many count for nothing.
        (f"{tree}//page/", "-r--r--r--                   10 page\n"),
        (f"{tree}/link/", "lrwxrwxrwx                    0 link -> bin\n"),
    ]:
        assert await tvix_store("ls", "-lR", *ON, path, cwd=folder) == Done(0, line, "")
    assert await tvix_store("cat", *ON, file, cwd=folder) == Done(0, "0123456789", "")


@pytest.mark.parametrize(
    ("inside", "code", "why"),
    [
        ("/bin", 1, "/bin is a folder and not a file"),
        ("/link/run", 3, "/link/run does not exist: links are not followed, and that one leads to"),
        ("/bin/../page", 2, "has a .. in it"),
    ],
)
async def test_what_has_no_contents_is_named(
    folder: Path, paths: list[str], inside: str, code: int, why: str
) -> None:
    done = await tvix_store("cat", *ON, f"{paths[0]}{inside}", cwd=folder)
    assert (done.code, done.out) == (code, "")
    assert why in " ".join(done.err.replace("│", "").split())


async def test_a_range_may_reach_beyond_the_end(folder: Path, paths: list[str]) -> None:
    line = ("cat", *ON, "--offset", "99999999999", "--length", "0", f"{paths[0]}/page")
    assert await tvix_store(*line, cwd=folder) == Done(0, "", "")


async def test_a_reader_that_goes_away_ends_a_listing_quietly(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')
    many: Tree = {b"%0200d" % number: Link(b"x") for number in range(3000)}
    write_out({b"a": many, b"b": many}, os.fsencode(tmp_path / "many"))
    done = await tvix_store("import", *ON, "many", cwd=tmp_path)
    for option in ("-R", "-R --json"):
        process = await begin("ls", *ON, *option.split(), done.out.strip(), cwd=tmp_path)
        assert await leave(process) == (141, "")


def found(tree: Tree, above: bytes = b"") -> Iterator[tuple[bytes, Node]]:
    """What is below `tree`, in the order in which it is found; it has no digests here."""
    if not isinstance(tree, dict):
        yield b"", node_of(tree)
        return
    for name, below in sorted(tree.items()):
        yield above + name, node_of(below)
        if isinstance(below, dict):
            yield from found(below, above + name + b"/")


def node_of(tree: Tree) -> Node:
    match tree:
        case File(contents, executable):
            return FileNode(EMPTY_DIGEST, len(contents), executable)
        case Link(target):
            return SymlinkNode(target)
    return DirectoryNode(EMPTY_DIGEST, 0)


def document_of(tree: Tree) -> dict[str, Any]:
    match tree:
        case File(contents, executable):
            file: dict[str, Any] = {"type": "regular", "size": len(contents)}
            return {**file, "executable": True} if executable else file
        case Link(target):
            return {"type": "symlink", "target": os.fsdecode(target)}
    entries = {os.fsdecode(name): document_of(below) for name, below in tree.items()}
    return {"type": "directory", "entries": entries}


@given(tree=trees)
def test_any_tree_becomes_one_document(tree: Tree) -> None:
    document = Document(recursive=True)
    parts = [document.add(name, node) for name, node in found(tree)]
    assert json.loads(b"".join([*parts, document.finish()])) == document_of(tree)
