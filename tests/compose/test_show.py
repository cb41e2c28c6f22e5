"""What the short form is lowered to, as `compose show` tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compose.test_load import SIGNED, load, substituter
from tvixstore.compose import lower, show
from tvixstore.compose.graph import Graph
from tvixstore.compose.nodes import (
    BreakerNode,
    CacheNode,
    FallbackNode,
    LocalPathInfoNode,
    RaceNode,
    RetryNode,
)

EVERYTHING = Path(__file__).with_name("everything.toml")


def graph_of(text: str) -> Graph:
    return lower(load(text))


def test_everything_at_once_is_shown_as_it_was() -> None:
    config = load(EVERYTHING.read_text())
    golden = EVERYTHING.with_suffix(".txt").read_text()
    assert show(config.daemon, lower(config)) + "\n" == golden


@pytest.mark.parametrize("secret", ["hunter2", "reader", "proxy-user", "proxy-password"])
def test_credentials_are_not_shown(secret: str) -> None:
    config = load(EVERYTHING.read_text())
    assert secret not in show(config.daemon, lower(config))


def test_without_substituters_there_is_the_local_store_alone() -> None:
    graph = graph_of("")
    assert set(graph.path_infos) == {"root"}
    assert isinstance(graph.path_infos["root"], LocalPathInfoNode)


def test_one_that_is_not_enabled_is_left_out() -> None:
    graph = graph_of(substituter(SIGNED, "enabled = false") + substituter(SIGNED, 'name = "b"'))
    assert "b" in graph.path_infos
    assert "cache.example.org" not in graph.path_infos


def test_with_none_enabled_there_is_the_local_store_alone() -> None:
    assert set(graph_of(substituter(SIGNED, "enabled = false")).path_infos) == {"root"}


def test_equal_priorities_race_and_classes_fall_back_in_order() -> None:
    graph = graph_of(
        "".join(
            substituter(SIGNED, f'name = "{name}"', f"priority = {priority}")
            for name, priority in [("late", 50), ("a", 40), ("first", -1), ("b", 40)]
        )
    )
    fallback = graph.path_infos["root/fallback"]
    assert isinstance(fallback, FallbackNode)
    assert fallback.members == ("first/breaker", "root/race-40", "late/breaker")
    race = graph.path_infos["root/race-40"]
    assert isinstance(race, RaceNode)
    assert race.members == ("a/breaker", "b/breaker")


def test_retries_are_attempts_after_the_first() -> None:
    retry = graph_of(substituter(SIGNED, "retries = 0")).path_infos["cache.example.org/retry"]
    assert isinstance(retry, RetryNode)
    assert retry.attempts == 1


@pytest.mark.parametrize(
    ("lines", "failures"),
    [((), 5), (("optional = true",), 1), (("optional = true", "breaker_failures = 3"), 3)],
)
def test_an_optional_one_is_left_alone_after_one_failure(
    lines: tuple[str, ...], failures: int
) -> None:
    breaker = graph_of(substituter(SIGNED, *lines)).path_infos["cache.example.org/breaker"]
    assert isinstance(breaker, BreakerNode)
    assert breaker.failures == failures


def test_a_circle_is_shown_once() -> None:
    config = load("")
    circle = Graph({}, {}, {"root": CacheNode(near="nobody", far="root")})
    assert show(config.daemon, circle).endswith(
        "path infos\n  root (cache)\n  ├─ near: nobody (missing)\n  └─ far: root (cache) as above"
    )
