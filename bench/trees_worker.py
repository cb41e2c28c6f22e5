"""Imports and extracts in a process of its own, and tells what each took, by the clock and by CPU.

    python -m bench.trees_worker PLACE import TREE TIMES
    python -m bench.trees_worker PLACE extract STORE-PATH FOLDER…

The store is open before anything is timed; Python's start is not what is measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from dataclasses import asdict, dataclass
from time import perf_counter

import uvloop

from tvixstore.cli.clients import NO_CREDENTIALS, Client, open_client
from tvixstore.cli.places import CachePlace, parse_place
from tvixstore.filesystem import Extractor, Importer, Inside, TreeReader


@dataclass(frozen=True, slots=True)
class Done:
    """One import, or one extraction."""

    seconds: float
    cpu: float
    path: str


async def _import(client: Client, tree: str) -> str:
    store = client.store
    importer = Importer(client.content, store.path_infos, client.pools, store.sizes)
    return str((await importer.add(tree)).store_path)


async def _extract(client: Client, path: str, folder: str) -> str:
    node = await TreeReader(client.store.path_infos, client.content).find(Inside.parse(path))
    await Extractor(client.content, client.pools).put(node, folder)
    return path


async def _main(where: str, what: str, subject: str, *rest: str) -> None:
    place = parse_place(where)
    assert not isinstance(place, CachePlace)
    done: list[Done] = []
    async with open_client(place, NO_CREDENTIALS) as client:
        for each in range(int(rest[0])) if what == "import" else rest:
            began, cpu = perf_counter(), time.process_time()
            if isinstance(each, int):
                path = await _import(client, subject)
            else:
                path = await _extract(client, subject, each)
            done.append(Done(perf_counter() - began, time.process_time() - cpu, path))
    print(json.dumps([asdict(each) for each in done]))


if __name__ == "__main__":
    # As the commands do.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(*sys.argv[1:]))
