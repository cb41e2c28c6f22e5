"""Measures the rows named on the command line, or all; the raw samples go to bench/results/."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from bench import (
    absent,
    cat,
    copy,
    dead,
    eviction,
    grpc_calls,
    hedge,
    memory,
    nar_large,
    nar_small,
    nar_zstd,
    narinfo,
    nix_copy,
    nix_upload,
    race,
    small_paths,
    trees,
)

if TYPE_CHECKING:
    from bench.harness import Row

ROWS: dict[str, Callable[[], Awaitable[list[Row]]]] = {
    "narinfo": narinfo.measure,
    "nar-large": nar_large.measure,
    "nar-small": nar_small.measure,
    "nar-zstd": nar_zstd.measure,
    "nix-copy": nix_copy.measure,
    "nix-upload": nix_upload.measure,
    "small-paths": small_paths.measure,
    "grpc": grpc_calls.measure,
    "copy": copy.measure,
    "race": race.measure,
    "dead": dead.measure,
    "absent": absent.measure,
    "hedge": hedge.measure,
    "eviction": eviction.measure,
    "memory": memory.measure,
    "import": trees.measure_import,
    "import-daemon": trees.measure_through_daemon,
    "import-large": trees.measure_large,
    "extract": trees.measure_extract,
    "cat": cat.measure,
}
_RESULTS = Path(__file__).parent / "results"


async def main(names: list[str]) -> None:
    if unknown := set(names) - ROWS.keys():
        raise SystemExit(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    for name in names or ROWS:
        began = perf_counter()
        rows = await ROWS[name]()
        for row in rows:
            print(f"{row.work}\n    aim      {row.aim}\n    measured {row.measured}", end="")
            print("" if row.met else "   MISSED", flush=True)
        print(f"    {name} took {perf_counter() - began:.0f} s", file=sys.stderr)
        _RESULTS.mkdir(exist_ok=True)
        told = {"environment": _environment(), "rows": [asdict(row) for row in rows]}
        file = _RESULTS / f"{name}.json"
        file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _environment() -> dict[str, str]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} × {_processor()}",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _commit() -> str:
    command = ("git", "describe", "--always", "--dirty")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
