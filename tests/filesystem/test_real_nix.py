"""Trees on disk as the real Nix sees them: the same paths, hashes and archives."""

from __future__ import annotations

import base64
import email
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.filesystem.places import HAND_MADE, LARGE, Nix, Places, Shelf, few_pools, sha256
from tests.nar.trees import File, Tree, trees
from tvixstore.filesystem import Extractor, nar_hash
from tvixstore.nar import render
from tvixstore.nix import nixbase32
from tvixstore.pools import Pools

pytestmark = pytest.mark.nix

# Each example starts two processes.
few = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def check(nix: Nix, shelf: Shelf, path: bytes) -> None:
    info = await shelf.importer.add(path)
    assert [str(info.store_path)] == nix.add(path)
    dumped = nix.dump(path)
    assert await render(shelf.content, info.node).read_all() == dumped
    assert (info.nar_size, info.nar_sha256) == (len(dumped), sha256(dumped))


@pytest.mark.parametrize("tree", HAND_MADE)
async def test_nix_adds_and_dumps_what_we_do(
    nix: Nix, shelf: Shelf, places: Places, tree: Tree
) -> None:
    await check(nix, shelf, places.make(tree))


@few
@given(tree=trees)
async def test_nix_adds_and_dumps_any_tree_as_we_do(nix: Nix, places: Places, tree: Tree) -> None:
    with few_pools() as pools:
        await check(nix, Shelf(pools), places.make(tree))


async def test_nix_adds_a_python_source_tree_as_we_do(
    nix: Nix, shelf: Shelf, tmp_path: Path
) -> None:
    source = Path(email.__file__).parents[1]
    for package in ("email", "json", "asyncio", "encodings", "lib2to3"):
        if (source / package).is_dir():
            shutil.copytree(source / package, tmp_path / "source" / package)
    await check(nix, shelf, os.fsencode(tmp_path / "source"))


@pytest.mark.parametrize("mode", [0o744, 0o700, 0o655, 0o611, 0o4755])
async def test_executable_is_what_its_owner_may_execute_as_with_nix(
    nix: Nix, shelf: Shelf, tmp_path: Path, mode: int
) -> None:
    (tmp_path / "tree").mkdir()
    for name, contents in (("small", b"x"), ("large", LARGE)):
        (tmp_path / "tree" / name).write_bytes(contents)
        (tmp_path / "tree" / name).chmod(mode)
    await check(nix, shelf, os.fsencode(tmp_path / "tree"))


async def test_nix_adds_flat_files_as_we_do(nix: Nix, shelf: Shelf, places: Places) -> None:
    for tree in (File(b""), File(b"text\n"), File(LARGE)):
        path = places.make(tree)
        info = await shelf.importer.add(path, flat=True)
        assert str(info.store_path) == nix.add_flat(path)


async def test_nix_hashes_paths_as_we_do(nix: Nix, pools: Pools, places: Places) -> None:
    path = places.make({b"a": File(b"x", True), b"b": {b"c": File(LARGE)}})
    digest = (await nar_hash(path, pools)).sha256
    assert nix.hash(path, "--base16") == digest.hex()
    assert nix.hash(path, "--base32") == nixbase32.encode(digest)
    assert nix.hash(path, "--sri") == f"sha256-{base64.b64encode(digest).decode()}"


async def test_a_git_checkout_goes_in_and_out_as_nix_has_it(
    nix: Nix, shelf: Shelf, pools: Pools, tmp_path: Path
) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    shutil.copytree(Path(email.__file__).parent, origin)
    (origin / "link").symlink_to("mime")
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    nix.run("git", "init", "-q", origin)
    nix.run("git", "-C", origin, "add", "-A")
    nix.run("git", "-C", origin, *author, "commit", "-q", "-m", "all")
    # Its objects are read-only, and hard links to those of the origin.
    nix.run("git", "clone", "-q", origin, clone)
    await check(nix, shelf, os.fsencode(clone))
    await check_out(nix, shelf, pools, clone)


async def test_node_modules_go_in_and_out_as_nix_has_them(
    nix: Nix, shelf: Shelf, pools: Pools, tmp_path: Path
) -> None:
    modules = tmp_path / "node_modules"
    for number in range(60):
        package = modules / (f"@scope/p{number}" if number % 3 else f"p{number}")
        for name in ("lib", "dist/esm", f"node_modules/q{number % 7}"):
            (package / name).mkdir(parents=True)
            for index in range(4):
                (package / name / f"{index}.js").write_text(f"export default {index}\n")
        (package / "package.json").write_text(json.dumps({"name": f"p{number}"}))
        (package / "cli.js").write_text("#!/usr/bin/env node\n")
        (package / "cli.js").chmod(0o755)
        (package / ".npmignore").touch()
        (modules / ".bin").mkdir(exist_ok=True)
        (modules / ".bin" / f"p{number}").symlink_to(f"../{package.relative_to(modules)}/cli.js")
    await check(nix, shelf, os.fsencode(modules))
    await check_out(nix, shelf, pools, modules)


async def check_out(nix: Nix, shelf: Shelf, pools: Pools, path: Path) -> None:
    info = await shelf.importer.add(path)
    for link in (False, True):
        out = path.parent / f"out-{link}"
        await Extractor(shelf.content, pools, link).put(info.node, out)
        assert nix.dump(out) == nix.dump(path)
