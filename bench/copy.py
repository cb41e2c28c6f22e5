"""`tvix-store copy` of a closure of 1 GB from one daemon to another.

The ceiling is bare grpclib between bare grpclib: a client that reads the same blobs in the same
messages from one server, and puts them to another.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.caches import KEY, PUBLIC_KEY, KiB, MiB, halving_bytes, random_bytes, write_cache
from bench.grpc_calls import ceiling
from bench.harness import RUNS, Row, cpu_seconds, median, ratio, workspace
from tests.nar.trees import File, Tree
from tests.support.caches import MadePath, make_path
from tests.support.composed import ComposedDaemon, local_store
from tvixstore.rpc import methods
from tvixstore.transfer.content import SHORT

# How many files of which size; half of each compress to a half, the others do not.
_FILES = {32 * MiB: 16, MiB: 256, 24 * KiB: 8192}
_PATHS = 16
_MESSAGE = 256 * KiB
# Blobs of a size that are on their way at a time; as `tvix-store copy` has it.
_AT_ONCE = {32 * MiB: 4, MiB: 4, 24 * KiB: 32}


def _closure() -> list[MadePath]:
    """`_PATHS` paths that share all files evenly, each referring to the one before."""
    paths: list[MadePath] = []
    for number in range(_PATHS):
        files: dict[bytes, Tree] = {}
        for size, count in _FILES.items():
            for each in range(number, count, _PATHS):
                make = random_bytes if each // _PATHS % 2 else halving_bytes
                files[b"%d-%d" % (size, each)] = File(make(f"copied {size} {each}", size))
        references = [path.narinfo.store_path for path in paths[-1:]]
        paths.append(make_path(f"copied-{number}", KEY, files, references=references))
    return paths


async def measure() -> list[Row]:
    async with workspace() as folder, AsyncExitStack() as stack:
        paths = await asyncio.to_thread(_closure)
        write_cache(folder / "cache", paths)
        size = sum(len(path.nar) for path in paths)
        top = paths[-1].store_path
        del paths
        source = await stack.enter_async_context(ComposedDaemon(folder / "source", local_store()))
        await _copy(f"file://{folder / 'cache'}", f"grpc+http://{source.grpc}", top)
        copies: list[float] = []
        bare: list[float] = []
        costs: dict[str, list[float]] = {"source": [], "target": []}
        for number in range(RUNS):
            place = folder / f"target-{number}"
            async with ComposedDaemon(place, local_store()) as target:
                before = {"source": cpu_seconds(source.pid), "target": 0.0}
                told = await _copy(f"grpc+http://{source.grpc}", f"grpc+http://{target.grpc}", top)
                assert told["nar_bytes"] == size, told
                copies.append(size / told["seconds"] / 1e6)
                for name, daemon in (("source", source), ("target", target)):
                    costs[name].append(cpu_seconds(daemon.pid) - before[name])
            bare.append(await _bare(folder))
    reached = ratio(copies, bare)
    samples = {"MB/s": copies, "bare grpclib MB/s": bare}
    samples |= {f"CPU seconds of the {name}": each for name, each in costs.items()}
    return [
        Row(
            f"copy of {size / 1e9:.2f} GB between two daemons",
            "≥ 0.6 × bare grpclib with the same messages",
            f"{reached:.2f} × ({median(copies):.0f} MB/s)",
            reached >= 0.6,
            samples,
        )
    ]


async def _copy(source: str, target: str, path: str) -> dict[str, Any]:
    """What `tvix-store copy` says that it did."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tvixstore.cli", "copy", "--from", source, "--to", target),
        *("--public-keys", PUBLIC_KEY, "--json", "--quiet", path),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"the copy from {source} to {target} failed")
    said: dict[str, Any] = json.loads(told)
    return said


async def _bare(folder: Path) -> float:
    """MB/s of the same through servers and a client that do nothing else."""
    replies: dict[str, Sequence[bytes]] = {_path_of(size): _messages(size) for size in _FILES}
    stat, put = methods.STAT_BLOB.path(), methods.PUT_BLOB.path()
    short = [methods.GET_DIRECTORY.path(), methods.DESCRIBE.path(), methods.PUT_PATH_INFO.path()]
    replies |= {path: [b"\0" * 40] for path in (stat, put, *short)}
    script = folder / "replies.json"
    script.write_text(
        json.dumps({path: [each.hex() for each in some] for path, some in replies.items()})
    )
    async with ceiling(script) as source, ceiling(script) as target:
        job = {
            "source": source.port,
            "target": target.port,
            "blobs": {
                _path_of(size): (count, _AT_ONCE[size], size > SHORT)
                for size, count in _FILES.items()
            },
            "calls": dict.fromkeys(short, _PATHS),
            "stat": stat,
            "put": put,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.grpc_pipe"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await process.communicate(json.dumps(job).encode())
    if process.returncode:
        raise SystemExit("bare grpclib failed")
    done = json.loads(told)
    return float(done["bytes"] / done["seconds"] / 1e6)


def _path_of(size: int) -> str:
    return f"/bench.Blobs{size}/Read"


def _messages(size: int) -> list[bytes]:
    encode = methods.READ_BLOB.reply.encode
    data = random_bytes("bare", size)
    return [encode(data[start : start + _MESSAGE]) for start in range(0, size, _MESSAGE)]
