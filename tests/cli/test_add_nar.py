"""`add-nar` as a command: what real Nix writes out, and what is refused and how that is said."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.filesystem.places import Nix, sha256
from tests.nar.trees import File, nar_of
from tests.pathinfo.samples import secret_key
from tests.support.caches import make_path
from tests.support.command import Done, begin, finish, tvix_store
from tests.support.until import until
from tvixstore.nix import ContentAddress, NixHash

ON = ("--compose", "compose.toml")
NAR = nar_of(File(b"0123456789"))
KEY = secret_key("cache-1")


@pytest.fixture(autouse=True)
def composition(tmp_path: Path) -> None:
    (tmp_path / "compose.toml").write_text('[daemon]\nhttp = "127.0.0.1:0"\n')


@pytest.mark.nix
async def test_content_addressed_paths_of_nix_need_no_signature(nix: Nix, tmp_path: Path) -> None:
    """Flat, text and recursive, as Nix writes them into a binary cache: a key that signed none of
    them is enough, since each is its own proof."""
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/run").write_text("#!/bin/sh\n")
    store = ("--store", tmp_path / "store")
    fixed = ("nix-store", *store, "--add-fixed")
    written = nix.run(
        *("nix-instantiate", *store, "--eval", "--read-write-mode", "-E"),
        'builtins.toFile "written" "text\n"',
    )
    made = [
        nix.run(*fixed, "sha256", tmp_path / "file"),
        nix.run(*fixed, "--recursive", "sha1", tmp_path / "tree"),
        nix.run("nix-store", *store, "--add", tmp_path / "tree"),
        written.strip().strip(b'"'),
    ]
    paths = [each.decode().strip() for each in made]
    cache = tmp_path / "cache"
    nix.run("nix", "copy", *store, "--to", f"file://{cache}?compression=xz", *paths)
    keys = ("--public-keys", str(KEY.public_key))
    addresses = set()
    for path in paths:
        narinfo = cache / f"{Path(path).name.partition('-')[0]}.narinfo"
        fields = dict(line.split(": ", 1) for line in narinfo.read_text().splitlines())
        addresses.add(fields["CA"].rpartition(":")[0])
        line = ("add-nar", *ON, *keys, "--narinfo", str(narinfo), str(cache / fields["URL"]))
        assert await tvix_store(*line, cwd=tmp_path) == Done(0, f"{path}\n", "")
    assert addresses == {"fixed:sha256", "fixed:r:sha1", "fixed:r:sha256", "text:sha256"}
    told = await tvix_store("info", "--json", "--from", "compose.toml", *paths, cwd=tmp_path)
    for path, info in zip(paths, json.loads(told.out), strict=True):
        dumped = nix.run("nix-store", *store, "--dump", f"{tmp_path}/store{path}")
        digest = NixHash.parse(info["nar_hash"]).digest
        assert (info["path"], info["nar_size"], digest) == (path, len(dumped), sha256(dumped))
    verified = await tvix_store("verify", *ON, cwd=tmp_path)
    assert (verified.code, verified.out) == (0, "")


async def test_keys_that_are_named_have_to_have_signed_it(tmp_path: Path) -> None:
    made = make_path("made", KEY, File(b"0123456789"))
    (tmp_path / "made.narinfo").write_text(str(made.narinfo))
    (tmp_path / "made.nar").write_bytes(made.nar)
    line = ("add-nar", *ON, "--narinfo", "made.narinfo", "made.nar", "--public-keys")
    other = str(secret_key("other-1").public_key)
    done = await tvix_store(*line, other, cwd=tmp_path)
    assert (done.code, done.out) == (5, "")
    assert f"{made.store_path} has no trusted signature (cache-1)" in done.err
    assert (await tvix_store("ls", *ON, made.store_path, cwd=tmp_path)).code == 3
    done = await tvix_store(*line, f"{other} {KEY.public_key}", cwd=tmp_path)
    assert done == Done(0, f"{made.store_path}\n", "")
    done = await tvix_store(*line, "nonsense", cwd=tmp_path)
    assert done.code == 2 and "--public-keys" in done.err


async def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for file, code, why in [
        ("none", 2, "none cannot be read: No such file or directory"),
        (".", 2, ". cannot be read: Is a directory"),
        # Opened, and no more.
        ("/proc/self/mem", 1, "/proc/self/mem cannot be read: Input/output error"),
    ]:
        done = await tvix_store("add-nar", *ON, "--name", "x", file, cwd=tmp_path)
        assert (done.code, done.out) == (code, "")
        assert why in " ".join(done.err.replace("│", "").split())
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("StorePath: /nix/store/", "StorePath: /other/store/", "line 1, StorePath"),
        ("References: ", "References: /other/store/x", "References"),
        ("NarSize: ", "Size: ", "narinfo has no NarSize"),
    ],
)
async def test_a_narinfo_that_is_none_is_wrong_usage(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    made = make_path("made", KEY, File(b"0123456789"))
    assert old in str(made.narinfo)
    (tmp_path / "made.narinfo").write_text(str(made.narinfo).replace(old, new))
    (tmp_path / "made.nar").write_bytes(made.nar)
    line = ("add-nar", *ON, "--narinfo", "made.narinfo", "made.nar")
    done = await tvix_store(*line, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert why in " ".join(done.err.replace("│", "").split())


async def test_a_pipe_that_breaks_leaves_no_path(tmp_path: Path) -> None:
    for part in (NAR[:-8], b""):
        process = await begin("add-nar", *ON, "--name", "x", "-", cwd=tmp_path)
        done = await finish(process, part)
        assert (done.code, done.out) == (1, "") and done.err.startswith("tvix-store: ")
        path = ContentAddress("recursive", NixHash("sha256", sha256(NAR))).store_path("x")
        assert (await tvix_store("ls", *ON, str(path), cwd=tmp_path)).code == 3


async def test_it_ends_at_once_while_a_pipe_is_silent(tmp_path: Path) -> None:
    process = await begin("add-nar", *ON, "--name", "x", "-", cwd=tmp_path)
    assert process.stdin is not None
    process.stdin.write(NAR[:40])
    await process.stdin.drain()
    # It has opened its state by then, and reads.
    await until((tmp_path / "state/index/data.mdb").exists)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        assert await process.wait() == 130
    process.stdin.close()
