"""A daemon whose compose file is edited: nobody is cut off, and what is broken changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import aiohttp
import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tests.support.caches import MadePath, make_path
from tests.support.daemon import Daemon, Event, Section, Value, compose_text, substituter
from tests.support.supervisor import NotifySocket, abstract_name
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.nix import SecretKey
from tvixstore.proto.tvix.store.v1 import GetPathInfoRequest, PathInfoServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

KEY = SecretKey.generate("cache-1")
# Longer than what Nix and the sockets on the way take in while the upstream pauses.
LONG = 8 << 20


def at(server: UpstreamServer, name: str, **keys: Value) -> Section:
    return substituter(server.url, str(KEY.public_key), name=name, **keys)


def serve(server: UpstreamServer, *paths: MadePath) -> None:
    server.on("/nix-cache-info", Reply(body=b"StoreDir: /nix/store\n"))
    for path in paths:
        for target, body in path.files().items():
            server.on(target, Reply(body=body))


def write(daemon: Daemon, sections: Sequence[Section], **keys: Value) -> None:
    """As an editor does: whoever reads it finds the old file or the new one."""
    put(daemon, compose_text(sections, keys, {}))


def put(daemon: Daemon, text: str) -> None:
    new = daemon.compose.with_suffix(".new")
    new.write_text(text)
    new.rename(daemon.compose)


async def hang_up(daemon: Daemon, event: str) -> Event:
    """SIGHUP, and the event that says what came of it."""
    before = len(daemon.events(event))
    os.kill(daemon.pid, signal.SIGHUP)
    return await daemon.logged_again(event, before)


async def substituters(daemon: Daemon) -> list[str]:
    found = json.loads((await daemon.get("/readyz")).body)["substituters"]
    return [each["name"] for each in found]


async def test_a_nar_comes_out_whole_whose_substituter_is_removed(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    path = make_path("long", upstreams.workshop.secret_key, size=LONG)
    go_on = asyncio.Event()
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        upstream.on(path.nar_target, Reply(body=path.nar, pause=go_on, after=LONG // 2))
        section = substituter(upstream.url, upstreams.key, name="gone", stall_timeout="60s")
        async with Daemon(tmp_path, [section]) as daemon, daemon.session() as session:
            async with session.get("/nix-cache-info") as kept:
                await kept.read()
            copying = asyncio.create_task(client.copy(daemon.url, path.store_path))
            await upstream.requested(path.nar_target)
            write(daemon, [])
            done = await hang_up(daemon, "reload.done")
            assert "gone" in str(done["removed"]).split(", ")
            assert await substituters(daemon) == []
            assert await daemon.metric("tvixstore_compositions_draining") == 1
            assert upstream.connections
            go_on.set()
            await copying
            await client.verify()
            await daemon.logged("reload.drained")
            await upstream.abandoned()
            # The same connection all the time.
            async with session.get("/nix-cache-info") as kept:
                assert kept.status == 200


TOO_EARLY = """
from tvixstore.pathinfo.nix import Fills
from tvixstore.policy.uses import Uses
async def at_once(_): pass
Uses.over = Fills.outlast = at_once
"""


@pytest.mark.slow
async def test_a_daemon_that_closes_too_early_is_noticed(tmp_path: Path) -> None:
    path = make_path("long", KEY, size=LONG)
    go_on = asyncio.Event()
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        upstream.on(path.nar_target, Reply(body=path.nar, pause=go_on, after=LONG // 2))
        section = at(upstream, "gone", stall_timeout="60s", retries=0)
        async with (
            Daemon(tmp_path, [section], planted=TOO_EARLY) as daemon,
            daemon.session() as session,
        ):
            async with session.get(await daemon.nar_target(path.digits)) as body:
                write(daemon, [])
                await hang_up(daemon, "reload.done")
                await daemon.logged("reload.drained")
                go_on.set()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await body.read()


async def test_connections_survive_and_see_what_is_new(tmp_path: Path) -> None:
    path = make_path("new", KEY)
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        doors = {"grpc": "127.0.0.1:0"}
        async with Daemon(tmp_path, [], daemon=doors) as daemon, daemon.session() as session:
            port = int(daemon.events("listening")[1]["grpc"].rpartition(":")[2])
            async with Channel("127.0.0.1", port) as channel:
                stub = PathInfoServiceStub(channel)
                wanted = GetPathInfoRequest(by_output_hash=path.narinfo.store_path.hash)
                with pytest.raises(GRPCError) as caught:
                    await stub.get(wanted)
                assert caught.value.status is Status.NOT_FOUND
                async with session.get(path.narinfo_target) as answer:
                    assert answer.status == 404
                connection = channel._protocol
                write(daemon, [at(upstream, "new")], **doors)
                done = await hang_up(daemon, "reload.done")
                assert "new" in done["added"].split(", ")
                assert (await stub.get(wanted)).narinfo is not None
                assert channel._protocol is connection
            async with session.get(path.narinfo_target) as answer:
                assert answer.status == 200
            assert await daemon.metric("tvixstore_reloads_total", outcome="done") == 1


BROKEN = {
    "syntax": "[daemon\n",
    "several mistakes": '[daemon]\npriority = "low"\nnosuch = 1\n[[substituters]]\nurl = "x"\n',
    "a missing key file": '[daemon]\nsign_with = "no-such.secret"\n',
    "a peer that is not there": (
        '[[substituters]]\nurl = "grpc+http://127.0.0.1:1?wait-connect=1"\nunsigned = true\n'
    ),
    "a state in use": (
        "".join(
            f'[{kind}.root]\ntype = "local"\npath = "../other/state"\n'
            for kind in ("blobservices", "directoryservices", "pathinfoservices")
        )
    ),
}


async def test_a_broken_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    path, other = make_path("there", KEY), make_path("also-there", KEY)
    async with (
        UpstreamServer() as upstream,
        Daemon(tmp_path / "other"),
        Daemon(tmp_path / "ours", [at(upstream, "a")]) as daemon,
    ):
        serve(upstream, path, other)
        assert (await daemon.get(path.narinfo_target)).status == 200
        files = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        for text in BROKEN.values():
            put(daemon, text)
            failed = await hang_up(daemon, "reload.failed")
            assert failed["level"] == "error", failed
            assert await substituters(daemon) == ["a"]
        reasons = [event["reason"] for event in daemon.events("reload.failed")]
        for said, reason in zip(
            (["not TOML"], ["priority", "nosuch", "url"], ["no-such.secret"], ["127.0.0.1:1"]),
            reasons,
            strict=False,
        ):
            assert all(each in reason for each in said), reason
        assert "in use by process" in reasons[-1]
        assert (await daemon.get(other.narinfo_target)).status == 200
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) <= files + 1
        assert await daemon.metric("tvixstore_reloads_total", outcome="failed") == len(BROKEN)
        # All that is left where writing it failed, and no reason to forget the substituters.
        put(daemon, "")
        assert "is empty" in (await hang_up(daemon, "reload.failed"))["reason"]
        assert await substituters(daemon) == ["a"]
        daemon.compose.unlink()
        await hang_up(daemon, "reload.failed")
        write(daemon, [at(upstream, "a")])
        await hang_up(daemon, "reload.unchanged")


async def test_a_file_that_is_watched_takes_effect_by_itself(tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        with NotifySocket(abstract_name()) as supervisor:
            daemon = Daemon(
                tmp_path,
                environment={"NOTIFY_SOCKET": supervisor.address},
                arguments=["--watch"],
            )
            async with daemon:
                assert "READY" in await supervisor.next()
                write(daemon, [at(upstream, "a")], access_log=True, http="127.0.0.1:1")
                await daemon.logged("reload.done")
                assert await substituters(daemon) == ["a"]
                await daemon.logged("request", route="readyz")
                stuck = await daemon.logged("reload.needs_restart")
                assert stuck["keys"] == "http"
                told = await supervisor.next()
                assert told["RELOADING"] == "1" and int(told["MONOTONIC_USEC"]) > 0
                assert (await supervisor.next())["READY"] == "1"
                # Gone for good, which is said once.
                daemon.compose.unlink()
                await daemon.logged("reload.failed")


async def test_sighup_before_it_is_ready_and_while_it_drains_is_harmless(tmp_path: Path) -> None:
    path = make_path("slow", KEY, size=3 << 20)
    rest = asyncio.Event()
    # It would end a process that does not expect it.
    early = (
        "import os, signal, tvixstore.cli.daemon as d; f = d.Composition.open\n"
        "async def opened(config): os.kill(os.getpid(), signal.SIGHUP); return await f(config)\n"
        "d.Composition.open = opened"
    )
    async with UpstreamServer() as upstream:
        serve(upstream, path)
        upstream.on(path.nar_target, Reply(body=path.nar, pause=rest, after=2 << 20))
        section = at(upstream, "a", stall_timeout="60s")
        daemon = Daemon(tmp_path, [section], daemon={"drain_timeout": "30s"}, planted=early)
        async with daemon, daemon.session() as session:
            await daemon.logged("reload.unchanged")
            target = await daemon.nar_target(path.digits)
            async with session.get(target) as body:
                await body.content.readexactly(1 << 20)
                # It goes while what began before still drains.
                write(daemon, [])
                await hang_up(daemon, "reload.done")
                stopping = asyncio.create_task(daemon.stop())
                await daemon.logged("draining")
                os.kill(daemon.pid, signal.SIGHUP)
                rest.set()
                assert len(await body.read()) == len(path.nar) - (1 << 20)
            await stopping
