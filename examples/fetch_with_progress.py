"""Fetches store paths into a composition, and says meanwhile what it waits for.

    python examples/fetch_with_progress.py compose.toml /nix/store/…-hello-2.12

What is there is not fetched. Each line is a change: asked, downloading, trying again, done.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import tvixstore
from tvixstore.nix import StorePath


def tell(progress: tvixstore.Progress) -> None:
    """A line for each thing that is waited for, and each step that it takes."""
    what = progress.what.rpartition("/")[2] or progress.kind
    parts = [f"{what}: {progress.phase}, from {progress.source}"]
    if progress.total:
        parts.append(
            f"{progress.bytes * 100 // progress.total} % at {progress.rate / 1e6:.1f} MB/s"
        )
    if progress.joined:
        parts.append(f"with {progress.readers - 1} others")
    if progress.reason is not None:
        parts.append(progress.reason)
    print("; ".join(parts), file=sys.stderr)


async def fetch(store: tvixstore.Store, paths: list[StorePath]) -> list[StorePath]:
    """Fetches `paths`, all at once; those that nobody has."""
    with tvixstore.progress(tell):
        infos = await asyncio.gather(*[store.path_infos.get(path.hash) for path in paths])
    return [path for path, info in zip(paths, infos, strict=True) if info is None]


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("compose", help="the compose file")
    parser.add_argument("paths", nargs="+", type=StorePath.from_absolute)
    arguments = parser.parse_args()
    async with tvixstore.open(arguments.compose) as store:
        absent = await fetch(store, arguments.paths)
    for path in absent:
        print(f"{path} is nowhere", file=sys.stderr)
    return 3 if absent else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
