"""Graphs as running services: each name once, everything wired, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compose.building import building
from tests.compose.test_load import SIGNED, substituter
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.compose import Config, load_text
from tvixstore.compose.composition import Composition
from tvixstore.compose.names import Names
from tvixstore.compose.nodes import CacheNode, Node, RaceNode
from tvixstore.errors import ConfigError, Skipped, Unavailable

HASH = bytes(20)
NARINFO = f"/{'0' * 32}.narinfo"


def config_of(folder: Path, *lines: str) -> Config:
    return load_text("\n".join(lines), "compose.toml", folder, {})


def names(nodes: dict[str, Node]) -> Names[str]:
    """A resolver that makes a service of its name and its neighbours' services."""

    def make(name: str, node: Node) -> str:
        below = [resolve(neighbour) for _, neighbour in node.neighbours()]
        return f"{name}({','.join(below)})"

    resolve = Names("pathinfoservices", nodes, make, "compose.toml")
    return resolve


LEAF = RaceNode.model_construct(members=())


async def test_each_name_is_made_once(tmp_path: Path) -> None:
    text = "\n".join(
        f"""
[{kind}.root]
type = "fallback"
members = ["a", "b"]
[{kind}.a]
type = "readonly"
inner = "leaf"
[{kind}.b]
type = "fallback"
members = ["leaf", "a"]
[{kind}.leaf]
type = "memory"
"""
        for kind in ("blobservices", "directoryservices", "pathinfoservices")
    )
    async with building(text, tmp_path) as builder:
        root = builder.blobs("root")
        assert root is builder.blobs("root")
        names = [part.key[2] for part in builder.made if isinstance(part.key, tuple)]
        assert names == ["root", "a", "leaf", "b"]


def test_a_name_that_is_met_again_on_the_way_down_is_a_circle() -> None:
    resolve = names(
        {
            "root": CacheNode(near="leaf", far="a"),
            "a": CacheNode(near="leaf", far="b"),
            "b": CacheNode(near="a", far="leaf"),
            "leaf": LEAF,
        }
    )
    with pytest.raises(ConfigError) as caught:
        resolve("root")
    assert str(caught.value) == (
        "compose.toml: [pathinfoservices.b]: a → b → a is a circle: "
        "no node can be built over itself"
    )


def test_a_name_that_nothing_has_is_told_with_who_wants_it() -> None:
    resolve = names({"root": CacheNode(near="leaf", far="nobody"), "leaf": LEAF})
    with pytest.raises(ConfigError) as caught:
        resolve("root")
    assert str(caught.value) == (
        'compose.toml: [pathinfoservices.root]: names "nobody", and no node is called that'
    )


async def test_without_substituters_whatever_is_not_there_is_absent(tmp_path: Path) -> None:
    async with await Composition.open(config_of(tmp_path)) as composition:
        assert await composition.path_infos.get(HASH) is None
        assert composition.upstream_statuses() == []


async def test_root_local_and_each_substituter_are_metered(tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        config = config_of(tmp_path, substituter(SIGNED, 'name = "mirror"', url=upstream.url))
        async with await Composition.open(config) as composition:
            assert await composition.path_infos.describe(HASH) is None
            for node in ("root", "local", "mirror"):
                labels = {"service": "pathinfo", "node": node, "call": "describe"}
                assert (
                    composition.metrics.registry.get_sample_value(
                        "tvixstore_node_calls_total", {**labels, "outcome": "absent"}
                    )
                    == 1
                )


async def test_an_absent_path_is_asked_for_once_even_after_a_restart(tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        config = config_of(tmp_path, substituter(SIGNED, url=upstream.url))
        for _ in range(2):
            async with await Composition.open(config) as composition:
                for _ in range(2):
                    assert await composition.path_infos.describe(HASH) is None
        assert len(upstream.seen(NARINFO)) == 1


async def test_an_upstream_that_fails_is_asked_as_often_as_it_says(tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        upstream.on(NARINFO, Reply(status=500))
        config = config_of(tmp_path, substituter(SIGNED, "retries = 1", url=upstream.url))
        async with await Composition.open(config) as composition:
            with pytest.raises(Unavailable):
                await composition.path_infos.describe(HASH)
            (status,) = composition.upstream_statuses()
            assert not status.up
            assert status.last_error is not None
            assert "500" in status.last_error
        assert len(upstream.seen(NARINFO)) == 2


async def test_an_optional_one_that_is_down_is_skipped(tmp_path: Path) -> None:
    async with UpstreamServer() as down, UpstreamServer() as up:
        down.on(NARINFO, Reply(status=500))
        config = config_of(
            tmp_path,
            substituter(SIGNED, 'name = "up"', url=up.url),
            substituter(SIGNED, 'name = "down"', "optional = true", "retries = 0", url=down.url),
        )
        async with await Composition.open(config) as composition:
            with pytest.raises(Skipped) as caught:
                await composition.path_infos.describe(HASH)
            assert caught.value.names == ("down",)
            assert caught.value.answered
            assert [status.up for status in composition.upstream_statuses()] == [True, False]


async def test_a_state_that_cannot_be_used_leaves_nothing_open(tmp_path: Path) -> None:
    async with await Composition.open(config_of(tmp_path)):
        with pytest.raises(ConfigError, match="in use"):
            await Composition.open(config_of(tmp_path))
    async with await Composition.open(config_of(tmp_path)):
        pass
