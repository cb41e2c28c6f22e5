"""NARs against the real tools: what Nix dumps we read, what we render Nix restores."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.nar.trees import (
    File,
    Link,
    Tree,
    deep,
    memory,
    nar_of,
    read_in,
    source,
    store,
    trees,
    utf8_trees,
    write_out,
)
from tests.support.parts import missing
from tvixstore.nar import ingest, listing, render

pytestmark = pytest.mark.nix

# Each example starts a process or two, and needs no fresh folder: it makes its own.
few = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])

HAND_MADE: list[Tree] = [
    {},
    File(b""),
    File(b"#!/bin/sh\n", True),
    Link(b"/nowhere/at/all"),
    {b"A": File(b""), b"a": File(b"12345678"), b"a-b": {}, b"a.b": {}, b"ab": {}},
    {b'q"u\\o\n\t\r\b\f\x01\x7f': Link(b'"\\/\xc3\xa9'), "é\u2028😀".encode(): File(b"x", True)},
    {b"n" * 255: File(b"long"), b"l": Link(b"t" * 4000)},
    {b"big": File(bytes(range(256)) * 2000), b"d": {b"e": {b"f": File(b"g")}}},
    deep(40, File(b"bottom")),
]


class Nix:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        for name in ("home", "conf"):
            (folder / name).mkdir()
        (folder / "conf/nix.conf").write_text("experimental-features = nix-command\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "NIX_CONF_DIR": str(folder / "conf"),
            "NIX_USER_CONF_FILES": "/dev/null",
            "NIX_STATE_DIR": str(folder / "state"),
            "NIX_STORE_DIR": str(folder / "store"),
        }

    def new_path(self) -> bytes:
        self._number += 1
        return os.fsencode(self.folder / str(self._number))

    def run(self, *command: str | bytes, data: bytes = b"") -> bytes:
        done = subprocess.run(
            command, input=data, capture_output=True, env=self._environment, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def dump(self, path: bytes) -> bytes:
        return self.run("nix-store", "--dump", path)

    def restore(self, nar: bytes) -> bytes:
        path = self.new_path()
        self.run("nix-store", "--restore", path, data=nar)
        return path

    def ls(self, nar: bytes) -> bytes:
        """The `root` of the listing."""
        path = self.new_path()
        Path(os.fsdecode(path)).write_bytes(nar)
        return self.run("nix", "nar", "ls", "--json", "--recursive", path, "/").rstrip(b"\n")


@pytest.fixture(scope="module")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    if shutil.which("nix-store") is None:
        missing("nix-bin is not installed")
    return Nix(tmp_path_factory.mktemp("nix"))


async def _check_both_ways(nix: Nix, tree: Tree) -> None:
    path = nix.new_path()
    write_out(tree, path)
    nar = nix.dump(path)
    assert nar == nar_of(tree)

    content = memory()
    node = await ingest(content, source(nar, 100))
    assert node == await store(content, tree)
    ours = await render(content, node).read_all()
    assert ours == nar
    assert read_in(nix.restore(ours)) == tree


async def _check_listing(nix: Nix, tree: Tree) -> None:
    content = memory()
    node = await store(content, tree)
    root = nix.ls(nar_of(tree))
    ours = await listing(content, node)
    assert json.loads(ours) == {"version": 1, "root": json.loads(root)}
    # Later versions sort their keys.
    if root.startswith(b'{"type"'):
        assert ours == b'{"version":1,"root":' + root + b"}"


@pytest.mark.parametrize("tree", HAND_MADE)
async def test_nix_dumps_and_restores_what_we_do(nix: Nix, tree: Tree) -> None:
    await _check_both_ways(nix, tree)


@few
@given(tree=trees)
async def test_nix_dumps_and_restores_any_tree_as_we_do(nix: Nix, tree: Tree) -> None:
    await _check_both_ways(nix, tree)


@pytest.mark.parametrize("tree", HAND_MADE)
async def test_nix_lists_what_we_list_to_the_byte(nix: Nix, tree: Tree) -> None:
    await _check_listing(nix, tree)


@few
@given(tree=utf8_trees)
async def test_nix_lists_any_tree_as_we_do(nix: Nix, tree: Tree) -> None:
    await _check_listing(nix, tree)
