"""Trees into a store and out of it, against git, tar and `nix-store --add` on the same disk.

Each pair is taken one right after the other, all sources are in the page cache, and every import
goes into a store, or a repository, that is empty. git by default syncs no object, as we with
durability "process"; beside "power" stands git with `core.fsync=all` in batches.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal, TypeAlias

from bench.caches import GiB, MiB, halving_bytes, random_bytes
from bench.harness import Row, cpu_seconds, median, ratio, workspace
from bench.trees_worker import Done
from tests.support.composed import ComposedDaemon, local_store
from tests.support.nix_client import environment

_FILES, _LOW, _HIGH = 20_000, 200, 5_600
_RUNS = 3
_LARGE = 2 * GiB
_KINDS = {"does not compress": random_bytes, "compresses to half": halving_bytes}

_Durability: TypeAlias = Literal["process", "power"]
_GIT_SYNC: dict[_Durability, tuple[str, ...]] = {
    "process": (),
    "power": ("-c", "core.fsync=all", "-c", "core.fsyncMethod=batch"),
}


@dataclass(slots=True)
class _Took:
    """Samples of one kind of work."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, seconds: float, cpu: float) -> None:
        self.seconds.append(seconds)
        self.cpu.append(cpu)

    def told(self, who: str) -> dict[str, list[float]]:
        return {f"{who}, s": self.seconds, f"{who}, CPU s": self.cpu}


async def measure_import() -> list[Row]:
    async with workspace() as folder:
        tree = folder / "tree"
        await asyncio.to_thread(_write_small, tree)
        rows: list[Row] = []
        for durability in ("process", "power"):
            rows += await _import_small(folder / durability, tree, durability)
        return rows


async def measure_through_daemon() -> list[Row]:
    async with workspace() as folder:
        await asyncio.to_thread(_write_small, folder / "tree")
        return await _import_through_daemon(folder / "daemon", folder / "tree")


async def measure_large() -> list[Row]:
    async with workspace() as folder:
        return [await _import_large(folder / "large", kind) for kind in _KINDS]


async def measure_extract() -> list[Row]:
    async with workspace() as folder:
        await asyncio.to_thread(_write_small, folder / "tree")
        return [await _extract(folder / "extract", folder / "tree")]


async def _import_small(folder: Path, tree: Path, durability: _Durability) -> list[Row]:
    ours, again, git, nix = _Took(), _Took(), _Took(), _Took()
    for number in range(_RUNS):
        place = folder / str(number)
        compose = _compose(place / "ours", durability)
        for took, done in zip((ours, again), await _work(compose, "import", tree, 2), strict=True):
            took.add(done.seconds, done.cpu)
        git.add(*await _git(place / "git", tree, durability))
        nix.add(*await _nix(place / "nix", tree))
        await asyncio.to_thread(shutil.rmtree, place)
    samples = ours.told("ours") | git.told("git add") | nix.told("nix-store --add")
    faster = ratio(ours.seconds, again.seconds)
    synced = "git with core.fsync=all" if durability == "power" else "git"
    return [
        Row(
            f'import of {_FILES:,} small files in one process, durability "{durability}"',
            f"≤ 0.5 × {synced} add, uncompressed",
            f"{ratio(ours.seconds, git.seconds):.2f} × ({median(ours.seconds):.2f} s; by CPU "
            f"{ratio(ours.cpu, git.cpu):.2f} ×; {ratio(ours.seconds, nix.seconds):.2f} × "
            "nix-store --add)",
            ratio(ours.seconds, git.seconds) <= 0.5,
            samples,
        ),
        Row(
            f'the same once more, unchanged, durability "{durability}"',
            "≥ 3 × faster than the first time",
            f"{faster:.1f} × ({median(again.seconds):.2f} s)",
            faster >= 3,
            ours.told("first") | again.told("again"),
        ),
    ]


async def _import_through_daemon(folder: Path, tree: Path) -> list[Row]:
    ours, again, git = _Took(), _Took(), _Took()
    for number in range(_RUNS):
        place = folder / str(number)
        async with ComposedDaemon(place / "ours", local_store()) as daemon:
            for took in (ours, again):
                before = cpu_seconds(daemon.pid)
                (done,) = await _work(f"grpc+http://{daemon.grpc}", "import", tree, 1)
                took.add(done.seconds, done.cpu + cpu_seconds(daemon.pid) - before)
        git.add(*await _git(place / "git", tree, "power"))
        await asyncio.to_thread(shutil.rmtree, place)
    reached, faster = ratio(ours.seconds, git.seconds), ratio(ours.seconds, again.seconds)
    return [
        Row(
            f'import of {_FILES:,} small files through the daemon, durability "power"',
            "≤ 1.5 × git with core.fsync=all add, uncompressed",
            f"{reached:.2f} × ({median(ours.seconds):.2f} s; by CPU of both "
            f"{ratio(ours.cpu, git.cpu):.2f} ×; once more, unchanged, {faster:.1f} × faster)",
            reached <= 1.5,
            ours.told("ours") | again.told("again") | git.told("git add"),
        )
    ]


async def _import_large(folder: Path, kind: str) -> Row:
    await asyncio.to_thread(_write_large, folder, kind)
    took = _Took()
    for number in range(_RUNS):
        place = folder / str(number)
        (done,) = await _work(_compose(place, "process"), "import", folder / "file", 1)
        took.add(done.seconds, done.cpu)
        await asyncio.to_thread(shutil.rmtree, place)
    await asyncio.to_thread(shutil.rmtree, folder)
    rates = [_LARGE / seconds / 1e6 for seconds in took.seconds]
    return Row(
        f'import of a file of 2 GiB that {kind}, durability "process"',
        "≥ 400 MB/s",
        f"{median(rates):.0f} MB/s ({median(took.cpu) / _LARGE * 1e9:.2f} ms of CPU a MB)",
        median(rates) >= 400,
        {"MB/s": rates} | took.told("ours"),
    )


async def _extract(folder: Path, tree: Path) -> Row:
    compose = _compose(folder / "ours", "process")
    (done,) = await _work(compose, "import", tree, 1)
    archive = folder / "tree.tar"
    await _run("tar", "cf", archive, "-C", tree.parent, tree.name)
    ours, tar = _Took(), _Took()
    for number in range(_RUNS):
        target = folder / f"ours-{number}"
        (one,) = await _work(compose, "extract", done.path, target)
        ours.add(one.seconds, one.cpu)
        (folder / f"tar-{number}").mkdir()
        tar.add(*await _run("tar", "xf", archive, "-C", folder / f"tar-{number}"))
    reached = ratio(ours.seconds, tar.seconds)
    return Row(
        f"extract of {_FILES:,} small files",
        "≤ 1.5 × tar x",
        f"{reached:.2f} × ({median(ours.seconds):.2f} s; by CPU {ratio(ours.cpu, tar.cpu):.2f} ×)",
        reached <= 1.5,
        ours.told("ours") | tar.told("tar x"),
    )


def _write_small(tree: Path) -> None:
    """A hundred in a folder; half of them compress to a half, the others do not."""
    sizes = random.Random("trees")
    for number in range(_FILES):
        folder = tree / f"d{number // 100:03}"
        folder.mkdir(parents=True, exist_ok=True)
        make = random_bytes if number % 2 else halving_bytes
        (folder / f"f{number:05}").write_bytes(make(f"{number}", sizes.randint(_LOW, _HIGH)))


def _write_large(folder: Path, kind: str) -> None:
    """No part of it is there twice."""
    folder.mkdir(parents=True)
    with (folder / "file").open("wb") as file:
        for number in range(_LARGE // (64 * MiB)):
            file.write(_KINDS[kind](f"large {number}", 64 * MiB))


def _compose(folder: Path, durability: _Durability) -> str:
    """A compose file for a store that is empty."""
    folder.mkdir(parents=True)
    file = folder / "compose.toml"
    file.write_text(f'[daemon]\nstate = "./state"\n[store]\ndurability = "{durability}"\n')
    return str(file)


async def _git(folder: Path, tree: Path, durability: _Durability) -> tuple[float, float]:
    await _run("git", "init", "-q", folder)
    return await _run(
        *("git", f"--git-dir={folder}/.git", f"--work-tree={tree}", "-c", "core.compression=0"),
        *(*_GIT_SYNC[durability], "-C", tree, "add", "-A", "."),
    )


async def _nix(folder: Path, tree: Path) -> tuple[float, float]:
    await asyncio.to_thread(folder.mkdir, parents=True)
    # Nix makes its store read-only; what is in it goes with the bench's folder all the same.
    took = await _run("nix-store", "--store", folder, "--add", tree, env=environment(folder))
    await _run("chmod", "-R", "u+w", folder)
    return took


async def _work(place: str, what: str, *arguments: object) -> list[Done]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.trees_worker", place, what, *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{what} at {place} failed")
    return [Done(**each) for each in json.loads(told)]


async def _run(*command: object, env: dict[str, str] | None = None) -> tuple[float, float]:
    """Seconds, and CPU seconds, of a program."""
    before, began = _children(), perf_counter()
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=env,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        raise SystemExit(said.decode(errors="replace"))
    return perf_counter() - began, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
