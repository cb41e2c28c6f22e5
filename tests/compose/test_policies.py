"""Policies in compose files: what becomes of them, what is warned of, and that they are wired."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compose.building import building
from tests.compose.test_load import SIGNED, load, substituter
from tests.compose.test_long import MEMORY, long, warnings
from tvixstore.blob.racing import RacingBlobService
from tvixstore.blob.timeout import TimeoutBlobService
from tvixstore.castore import Digest
from tvixstore.compose import lower
from tvixstore.compose.nodes import RaceNode
from tvixstore.compose.script import format_step, parse_step
from tvixstore.compose.show import tree
from tvixstore.errors import ReadOnly, Unavailable
from tvixstore.policy.timeout import Timeout


def shown(text: str) -> str:
    return "\n".join(tree(lower(load(text)), "path_infos"))


def test_only_and_except_become_a_node_right_above_the_substituter() -> None:
    text = shown(substituter(SIGNED, 'only = ["firefox-*", "a?c"]', 'except = ["*-debug"]'))
    assert "names (names) only=firefox-*,a?c but=*-debug" in text
    assert "(names)" not in shown(substituter(SIGNED))


def test_a_rate_is_the_binary_caches_own_and_a_limit_around_a_daemons_blobs() -> None:
    assert " rate=5MiB" in shown(substituter(SIGNED, 'rate = "5MiB"'))
    office = substituter(SIGNED, "rate = 1000", url="grpc+http://office.example:8000")
    graph = lower(load(office))
    for kind in ("blobs", "directories"):
        text = "\n".join(tree(graph, kind))
        assert "far: office.example/limit (limit) rate=1000B" in text
        assert "office.example (grpc)" in text


def test_a_learned_hedge_is_the_races() -> None:
    two = substituter(SIGNED) + substituter(SIGNED, url="https://other.example.org")
    graph = lower(load(f'[daemon]\nhedge = "p95"\n{two}'))
    (race,) = [node for node in graph.path_infos.values() if isinstance(node, RaceNode)]
    assert (race.hedge, race.budget) == ("p95", 0.1)


def test_offline_leaves_the_store_alone() -> None:
    text = "[daemon]\noffline = true\n" + substituter(SIGNED)
    assert shown(text).splitlines()[0].startswith("  root (local)")
    long_form = "[daemon]\noffline = true\n" + long(
        pathinfoservices="""
[pathinfoservices.root]
type = "cache"
near = "disk"
far = "office"
[pathinfoservices.disk]
type = "memory"
[pathinfoservices.office]
type = "grpc"
url = "grpc+http://office.example:8000"
"""
    )
    assert "far: office (nothing)" in shown(long_form)


OFFLINE = "[daemon]\noffline = true\n" + "\n".join(
    f'[{section}.root]\ntype = "grpc"\nurl = "grpc+http://127.0.0.1:1"\n' for section in MEMORY
)


async def test_what_is_elsewhere_has_nothing_while_offline(tmp_path: Path) -> None:
    async with building(OFFLINE, tmp_path) as builder:
        digest = Digest.of(b"x")
        assert not await builder.blobs("root").has(digest)
        assert await builder.blobs("root").read(digest) is None
        assert await builder.directories("root").get(digest) is None
        assert [each async for each in builder.directories("root").get_closure(digest)] == []
        assert await builder.path_infos("root").describe(bytes(20)) is None
        with pytest.raises(ReadOnly, match="offline"):
            await builder.blobs("root").put(b"x")


def test_faults_on_purpose_are_warned_of() -> None:
    drill = '[blobservices.root]\ntype = "chaos"\ninner = "memory://"\n'
    (said,) = warnings(long(blobservices=drill + "error_rate = 0.1\n"))
    assert said.startswith("[blobservices.root]: type: chaos lets calls go wrong on purpose: take")
    for lies in ("absent_rate = 0.1\n", 'script = ["ok", "absent 5s"]\n'):
        (said,) = warnings(long(blobservices=drill + lies))
        assert "denies what is there" in said


def test_a_limit_that_waits_for_others_is_warned_of() -> None:
    limited = '[blobservices.root]\ntype = "limit"\ninner = "{}"\nconcurrency = 1\n'
    assert warnings(long(blobservices=limited.format("memory://"))) == []
    race = '[blobservices.race]\ntype = "race"\nmembers = ["memory://", "memory://"]\n'
    (said,) = warnings(long(blobservices=limited.format("race") + race))
    assert said.startswith('[blobservices.root]: inner: "race" is no store itself')


TIMEOUT = """
[blobservices.root]
type = "timeout"
inner = "again"
attempt = "2s"
overall = "{}"
[blobservices.again]
type = "{}"
inner = "memory://"
"""


def test_an_overall_time_without_a_retry_is_warned_of() -> None:
    assert warnings(long(blobservices=TIMEOUT.format("9s", "retry"))) == []
    (said,) = warnings(long(blobservices=TIMEOUT.format("9s", "verify")))
    assert said.startswith("[blobservices.root]: overall: has no retry below it")


def test_an_overall_time_that_starves_a_retry_is_warned_of() -> None:
    starved = TIMEOUT.format("1s", "retry").replace("memory://", "soon")
    starved += '[blobservices.soon]\ntype = "timeout"\ninner = "memory://"\nattempt = "1s"\n'
    (said,) = warnings(long(blobservices=starved))
    assert said.startswith("[blobservices.root]: overall: 1s around a retry leaves its attempts")


async def test_without_a_retry_the_shorter_time_counts(tmp_path: Path) -> None:
    for overall, below, expected in (
        ("9s", "retry", Timeout(2.0, 9.0)),
        ("9s", "verify", Timeout(2.0)),
        ("1s", "verify", Timeout(1.0)),
    ):
        text = long(blobservices=TIMEOUT.format(overall, below))
        async with building(text, tmp_path) as builder:
            service = builder.blobs("root")
            assert isinstance(service, TimeoutBlobService)
            assert service.timeout == expected


async def test_a_put_anywhere_ends_what_was_remembered_as_absent(tmp_path: Path) -> None:
    text = "\n".join(
        f"""
[{section}.root]
type = "negative"
inner = "store"
[{section}.store]
type = "memory"
"""
        for section in MEMORY
    )
    async with building(text, tmp_path) as builder:
        root, store = builder.blobs("root"), builder.blobs("store")
        digest = Digest.of(b"x")
        assert not await root.has(digest)
        await store.put(b"x")
        assert await root.has(digest)
        other = Digest.of(b"y")
        assert not await root.has(other)
        builder.arriving.forget()


async def test_a_drill_fails_as_its_script_says(tmp_path: Path) -> None:
    drill = '[blobservices.root]\ntype = "chaos"\ninner = "memory://"\nscript = ["ok", "error"]\n'
    async with building(long(blobservices=drill), tmp_path) as builder:
        root = builder.blobs("root")
        digest = await root.put(b"x")
        with pytest.raises(Unavailable, match="chaos: error"):
            await root.read(digest)
        assert await root.read(digest) == b"x"


async def test_a_budget_is_the_races(tmp_path: Path) -> None:
    race = (
        '[blobservices.root]\ntype = "race"\nmembers = ["memory://", "memory://"]\n'
        'hedge = "1s"\nbudget = 0.25\n'
    )
    async with building(long(blobservices=race), tmp_path) as builder:
        root = builder.blobs("root")
        assert isinstance(root, RacingBlobService)
        assert (root.hedge.delay, root.hedge.budget.share) == (1.0, 0.25)


@pytest.mark.parametrize("line", ["ok", "error 200ms", "absent x3", "stall 1s x*", "corrupt 1m x2"])
def test_a_line_of_a_script_is_written_as_it_was_read(line: str) -> None:
    assert format_step(*parse_step(line)) == line
