"""`tvix-store copy` between daemons, compositions and binary caches, beside the real Nix."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import EXPRESSION
from tests.support.caches import assert_same_tree
from tests.support.command import begin, finish, tvix_store
from tests.support.composed import ComposedDaemon, local_store
from tests.support.put_server import PutServer
from tvixstore.cli.clients import open_client
from tvixstore.cli.places import DaemonPlace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.command import Done
    from tests.support.daemon import Daemon
    from tests.support.nix_client import NixClient


def url_of(daemon: ComposedDaemon) -> str:
    return f"grpc+http://{daemon.grpc}"


@asynccontextmanager
async def daemons(folder: Path, *names: str) -> AsyncIterator[list[ComposedDaemon]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(ComposedDaemon(folder / name, local_store()))
            for name in names
        ]


async def copied(*arguments: str, **options: Any) -> dict[str, Any]:
    """What a copy that has to succeed says of itself."""
    done = await tvix_store("copy", "--json", *arguments, **options)
    assert done.code == 0, done
    told: dict[str, Any] = json.loads(done.out)
    return told


async def fill(upstreams: Upstreams, daemon: ComposedDaemon, path: str) -> dict[str, Any]:
    """Has the closure of `path` in `daemon`."""
    source = f"file://{upstreams.of('none', path)}"
    return await copied(
        "--from", source, "--to", url_of(daemon), "--public-keys", upstreams.key, path
    )


async def paths_in(daemon: ComposedDaemon) -> set[str]:
    """All paths that it has; each with its content, and all that it refers to."""
    async with open_client(DaemonPlace(url_of(daemon))) as client:
        infos = {info.store_path: info async for info in client.store.path_infos.list()}
        for info in infos.values():
            assert set(info.references) <= infos.keys()
            found = await client.store.path_infos.calculate_nar(info.node)  # type: ignore[attr-defined]
            assert (found.size, found.sha256) == (info.nar_size, info.nar_sha256)
    return set(map(str, infos))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("xz", "zstd"),
        pytest.param("zstd", "xz", marks=pytest.mark.slow),
        pytest.param("none", "none", marks=pytest.mark.slow),
    ],
)
async def test_a_closure_goes_from_a_cache_of_nix_through_two_daemons_into_one_for_nix(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient, theirs: str, ours: str
) -> None:
    closure = upstreams.workshop.closure(app)
    async with daemons(tmp_path, "one", "other") as (one, other):
        source = f"file://{upstreams.of(theirs, app)}"
        came = await copied(
            *("--from", source, "--to", url_of(one), "--public-keys", upstreams.key, app)
        )
        assert {each["path"] for each in came["paths"]} == set(closure)
        went = await copied("--from", url_of(one), "--to", url_of(other), app)
        assert (went["copied"], went["skipped"]) == (len(closure), 0)
        assert await paths_in(other) == set(closure)
        folder = f"file://{tmp_path / 'cache'}"
        out = await copied("--from", url_of(other), "--to", folder, "--compression", ours, app)
        assert [each["path"] for each in out["paths"]][-1] == app
        again = await copied("--from", url_of(other), "--to", folder, app)
        assert (again["copied"], again["skipped"]) == (0, len(closure))
    await client.realise(folder, app)
    await client.verify()
    for path in closure:
        assert_same_tree(upstreams.workshop.original(path), client.path(path))


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "xz", "zstd", "bzip2", "gzip", "br", "lz4"])
async def test_each_compression_of_nix_can_be_copied_from_into_another_cache(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient, compression: str
) -> None:
    source, target = f"file://{upstreams.of(compression, app)}", f"file://{tmp_path / 'cache'}"
    await copied("--from", source, "--to", target, "--public-keys", upstreams.key, app)
    await client.copy(target, app)
    await client.verify()


async def test_a_cache_over_http_is_written_to_and_nix_reads_from_it(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient
) -> None:
    async with daemons(tmp_path, "one") as (one,), PutServer(tmp_path / "server") as server:
        await fill(upstreams, one, app)
        await copied("--from", url_of(one), "--to", server.url, app)
        await client.copy(server.url, app)
        assert server.asked("PUT").count("/nix-cache-info") == 1
    await client.verify()
    assert client.has(*upstreams.workshop.closure(app))


async def test_a_composition_is_copied_from_and_to_while_no_daemon_has_it(
    tmp_path: Path, upstreams: Upstreams, app: str
) -> None:
    closure = upstreams.workshop.closure(app)
    async with daemons(tmp_path, "one") as (one,):
        await fill(upstreams, one, app)
        (tmp_path / "own.toml").write_text('[daemon]\nstate = "./own"\n')
        own = str(tmp_path / "own.toml")
        assert (await copied("--from", url_of(one), "--to", own, app))["copied"] == len(closure)
        # In use by its daemon, and said so.
        refused = await tvix_store("copy", "--from", str(one.compose), "--to", own, app)
        assert refused.code == 1
        assert f"is in use by process {one.pid}" in refused.err
        assert "ask the daemon that has it, by its address" in refused.err
    # The daemon is gone: its composition can be had.
    told = await copied("--from", str(one.compose), "--to", f"file://{tmp_path / 'cache'}", app)
    assert told["copied"] == len(closure)


async def test_the_missing_end_is_the_daemon_of_the_compose_file_or_what_compose_names(
    tmp_path: Path, upstreams: Upstreams, app: str
) -> None:
    daemon = ComposedDaemon(tmp_path / "one", local_store(), {"grpc": "unix:grpc.sock"})
    source = ("--from", f"file://{upstreams.of('none', app)}", "--public-keys", upstreams.key)
    async with daemon:
        told = await copied(*source, app, cwd=daemon.folder)
        assert told["to"] == f"grpc+unix://{daemon.folder / 'grpc.sock'}"
        known = await tvix_store("info", app, cwd=daemon.folder)
        assert known.code == 0 and "content       here" in known.out
    gone = await tvix_store("copy", *source, app, cwd=daemon.folder)
    assert gone.code == 4 and "cannot be reached" in gone.err
    within = await copied(*source, "--compose", "compose.toml", app, cwd=daemon.folder)
    assert within["skipped"] == told["copied"]


async def test_lists_of_paths_that_nix_makes_are_taken(
    tmp_path: Path, upstreams: Upstreams, app: str
) -> None:
    workshop = upstreams.workshop
    closure = workshop.closure(app)
    as_json = workshop.path_info(*closure)
    graph, attributes = workshop.build(write_graphs(tmp_path), "text", "json")
    lists = {
        "path-info.json": as_json,
        "graph": workshop.original(graph).read_text(),
        "attrs.json": workshop.original(attributes).read_text(),
    }
    source = ("--from", f"file://{upstreams.of('none', app)}", "--public-keys", upstreams.key)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        target = ("--to", f"file://{tmp_path / 'of'}-{name}")
        told = await copied(*source, *target, "--closure-info", str(tmp_path / name))
        assert {each["path"] for each in told["paths"]} == set(closure), name
        told = await copied(*source, *target, "--closure-info", "-", stdin=text.encode())
        assert told["skipped"] == len(closure)


def write_graphs(folder: Path) -> Path:
    """An expression whose outputs are the closure of `app` as builders get it."""
    file = folder / "graphs.nix"
    file.write_text(f"""
let
  app = (import {EXPRESSION}).app;
  make = extra: derivation ({{
    name = "graph";
    system = "x86_64-linux";
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
  }} // extra);
in {{
  text = make {{
    exportReferencesGraph = [ "graph" app ];
    args = [ "-ec" "/bin/cat graph > $out" ];
  }};
  json = make {{
    __structuredAttrs = true;
    exportReferencesGraph.closure = [ app ];
    args = [ "-ec" "/bin/cat .attrs.json > ${{builtins.placeholder "out"}}" ];
  }};
}}
""")
    return file


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
async def test_broken_off_at_random_it_leaves_whole_closures_and_goes_on(
    tmp_path: Path, upstreams: Upstreams, many: str, number: signal.Signals
) -> None:
    closure = set(upstreams.workshop.closure(many))
    async with daemons(tmp_path, "one", "other") as (one, other):
        await fill(upstreams, one, many)
        there: set[str] = set()
        lines = random.Random(number)
        for _ in range(2):
            done = await broken_off(
                *("--from", url_of(one), "--to", url_of(other), "-j", "3", many),
                number=number,
                after=lines.randrange(1, 15),
            )
            assert done.code == (130 if number is signal.SIGINT else -signal.SIGKILL), done
            before, there = there, await paths_in(other)
            assert before < there < closure
        told = await copied("--from", url_of(one), "--to", url_of(other), many)
        # A daemon keeps what it was given, also if whoever gave it is gone by then.
        assert told["skipped"] >= len(there)
        assert await paths_in(other) == closure
        other.assert_log_is_clean()


async def broken_off(*arguments: str, number: signal.Signals, after: int) -> Done:
    """A copy that is sent a signal when it has told of so many paths."""
    process = await begin("copy", *arguments)
    assert process.stderr is not None
    read = [await process.stderr.readline() for _ in range(after)]
    assert all(line.startswith(b"copied ") for line in read), read
    process.send_signal(number)
    done = await finish(process)
    if number is signal.SIGINT:
        assert "Traceback" not in done.err
        assert done.err.endswith("tvix-store: interrupted\n")
    return done


@pytest.mark.slow
async def test_a_target_that_goes_away_is_unknown_and_the_copy_goes_on_afterwards(
    tmp_path: Path, upstreams: Upstreams, big: str
) -> None:
    other = ComposedDaemon(tmp_path / "other", local_store(), {"grpc": "unix:grpc.sock"})
    url = f"grpc+unix://{other.folder / 'grpc.sock'}"
    async with daemons(tmp_path, "one") as (one,):
        await fill(upstreams, one, big)
        await other.start()
        running = asyncio.create_task(tvix_store("copy", "--from", url_of(one), "--to", url, big))
        await wrote_chunks(other)
        await other.kill()
        done = await running
        assert done.code == 4, done
        async with other:
            told = await copied("--from", url_of(one), "--to", url, big)
            assert told["copied"] == 1


async def wrote_chunks(daemon: Daemon) -> None:
    """Returns once something of what is put is on its disk."""
    chunks = daemon.state / "chunks"
    while not any(chunks.rglob("*/*")):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
