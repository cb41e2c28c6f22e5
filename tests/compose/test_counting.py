"""A store evicts only where all that needs what is in it is counted there."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tests.evict.stores import info_of
from tests.nar.trees import File, Tree, nar_of
from tvixstore import nar
from tvixstore.compose import load_text
from tvixstore.compose.composition import Composition
from tvixstore.compose.counting import home, why_uncounted
from tvixstore.compose.graph import Graph
from tvixstore.compose.lower import lower
from tvixstore.streams import BytesStream

GRPC = 'type = "grpc"\nurl = "grpc+http://127.0.0.1:1"'
DISK = 'type = "local"\npath = "disk"'
OTHER = 'type = "local"\npath = "other"'
CACHE = 'type = "cache"\nnear = "disk"\nfar = "far"'


def compose(
    blobs: dict[str, str], directories: dict[str, str], paths: dict[str, str], state: str = "disk"
) -> str:
    text = f'[daemon]\nstate = "{state}"\n'
    for kind, nodes in (("blob", blobs), ("directory", directories), ("pathinfo", paths)):
        for name, body in nodes.items():
            text += f"[{kind}services.{name}]\n{body}\n"
    return text


ONE = {"root": DISK}
TIERS = {"root": CACHE, "disk": DISK, "far": GRPC}
OTHERS = {"root": 'type = "fallback"\nmembers = ["disk", "other"]', "disk": DISK, "other": OTHER}
EVICTS = {
    "a short form": '[daemon]\nstate = "disk"\n',
    "one store": compose(ONE, ONE, ONE),
    "one store that is not the state": compose(ONE, ONE, ONE, state="elsewhere"),
    "a cache in front of another daemon": compose(TIERS, TIERS, TIERS),
    "a store before an old one": compose(
        {**OTHERS, "other": GRPC}, {**OTHERS, "other": GRPC}, OTHERS | {"other": GRPC}
    ),
}
DOES_NOT = {
    "path infos elsewhere": compose(ONE, ONE, {"root": OTHER}),
    "path infos elsewhere, and here": compose(ONE, ONE, OTHERS),
    "path infos in memory, and here": compose(ONE, ONE, OTHERS | {"other": 'type = "memory"'}),
    "Directories elsewhere": compose(ONE, {"root": OTHER}, ONE),
    "Directories with another daemon": compose(ONE, {"root": GRPC}, ONE),
    "blobs elsewhere": compose({"root": OTHER}, ONE, ONE),
    "blobs alone": compose(ONE, {"root": GRPC}, {"root": GRPC}),
    "what is cached in another store": compose(
        {**TIERS, "disk": OTHER, "far": DISK}, {**TIERS, "disk": OTHER, "far": DISK}, ONE
    ),
}


def graph_of(text: str, folder: Path) -> tuple[Graph, Path]:
    config = load_text(text, "compose.toml", folder)
    graph = lower(config)
    return graph, home(graph) or config.daemon.state


@pytest.mark.parametrize("text", EVICTS.values(), ids=EVICTS.keys())
def test_a_store_evicts_that_counts_all_that_needs_it(text: str, tmp_path: Path) -> None:
    graph, rows = graph_of(text, tmp_path)
    assert why_uncounted(graph, tmp_path / "disk", rows) is None


@pytest.mark.parametrize("text", DOES_NOT.values(), ids=DOES_NOT.keys())
def test_a_store_does_not_evict_what_others_need(text: str, tmp_path: Path) -> None:
    graph, rows = graph_of(text, tmp_path)
    assert why_uncounted(graph, tmp_path / "disk", rows) is not None


def test_what_is_in_the_far_store_of_a_cache_is_needed_by_the_near_one(tmp_path: Path) -> None:
    tiers = {"root": CACHE, "disk": DISK, "far": OTHER}
    far = OTHER + '\nblob_service = "far"\ndirectory_service = "far"'
    graph, rows = graph_of(compose(tiers, tiers, tiers | {"far": far}), tmp_path)
    evicts = partial(why_uncounted, graph, rows=rows)
    assert evicts(tmp_path / "disk") is None
    assert evicts(tmp_path / "other") is not None


LONG = """
[daemon]
state = "state"
[blobservices.root]
type = "local"
path = "disk"
max_size = "2MiB"
min_free = "0"
[directoryservices.root]
type = "local"
path = "disk"
[pathinfoservices.root]
type = "local"
path = "paths"
[pathinfoservices.own]
type = "local"
path = "disk"
"""


async def test_content_of_paths_that_are_kept_elsewhere_stays(tmp_path: Path) -> None:
    config = load_text(LONG, "compose.toml", tmp_path)
    async with await Composition.open(config) as composition:
        disk = str(tmp_path / "disk")
        assert f"evict {disk}" not in task_names()
        tree: Tree = {b"file": File(bytes(100_000))}
        data = nar_of(tree)
        node = await nar.ingest(composition.content, BytesStream(data), pools=composition.pools)
        info = await composition.path_infos.put(info_of("one", data, node))
        stream = await composition.path_infos.open_nar(info)
        assert stream is not None and await stream.read_all() == data


async def test_uploads_and_extras_are_kept_beside_their_content(tmp_path: Path) -> None:
    text = EVICTS["one store that is not the state"]
    config = load_text(text, "compose.toml", tmp_path)
    async with await Composition.open(config) as composition:
        where = repr(composition.inbox.uploads.table)
        assert str(tmp_path / "disk") in where
        assert f"evict {tmp_path / 'disk'}" in task_names()


def task_names() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]
