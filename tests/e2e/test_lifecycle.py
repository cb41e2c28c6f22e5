"""The daemon from start to stop: what it remembers, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.caches import files_of, make_path
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, Seen, UpstreamServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

AT_ONCE = 25


async def statuses(daemon: Daemon, targets: Iterable[str]) -> Counter[int]:
    """Asks for all `targets`, some at a time as Nix does, and counts what is answered."""
    found: Counter[int] = Counter()
    queue = list(targets)

    async def ask(session: aiohttp.ClientSession) -> None:
        while queue:
            async with session.get(queue.pop()) as answer:
                await answer.read()
                found[answer.status] += 1

    async with daemon.session() as session:
        await asyncio.gather(*(ask(session) for _ in range(AT_ONCE)))
    return found


async def test_two_thousand_lookups_twice_are_two_thousand_at_the_upstream(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    key = upstreams.workshop.secret_key
    present = [make_path(f"present-{number}", key, size=10) for number in range(1000)]
    absent = [make_path(f"absent-{number}", None, size=10) for number in range(1000)]
    targets = [path.narinfo_target for path in (*present, *absent)]
    files = files_of(present)

    def serve(seen: Seen) -> Reply:
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    expected = Counter({200: 1000, 404: 1000})
    async with UpstreamServer() as upstream:
        upstream.otherwise(serve)

        def lookups() -> int:
            return sum(seen.path.endswith(".narinfo") for seen in upstream.log)

        # Absences may expire in a minute, and this machine may be slow.
        settings = {"negative_ttl": "10m"}
        sections = [substituter(upstream.url, upstreams.key, timeout="20s")]
        daemon = Daemon(tmp_path, sections, daemon=settings)
        async with daemon:
            assert await statuses(daemon, targets) == expected
            assert lookups() == 2000
            assert await statuses(daemon, targets) == expected
            assert lookups() == 2000
        async with daemon:
            assert await statuses(daemon, targets) == expected
            assert lookups() == 2000


async def test_an_absence_is_believed_for_its_ttl_and_no_longer(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    path = make_path("comes-later", upstreams.workshop.secret_key)
    async with UpstreamServer() as upstream:
        sections = [substituter(upstream.url, upstreams.key)]
        async with Daemon(tmp_path, sections, daemon={"negative_ttl": "2s"}) as daemon:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            assert (await daemon.get(path.narinfo_target)).status == 404
            upstream.on(path.narinfo_target, Reply(body=path.text))
            again = await daemon.get(path.narinfo_target)
            # Unless the machine stood still meanwhile.
            if loop.time() - begin < 2:
                assert again.status == 404
                assert len(upstream.seen(path.narinfo_target)) == 1
            while (await daemon.get(path.narinfo_target)).status == 404:
                assert loop.time() - begin < 30
            assert loop.time() - begin >= 2


async def refused(daemon: Daemon) -> None:
    """Returns once the daemon takes no more connections."""
    with suppress(aiohttp.ClientConnectionError):
        async with asyncio.timeout(20):
            while True:
                await daemon.get("/healthz")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_nar_come_to_its_end(
    number: signal.Signals, tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    path = make_path("slow-to-come", upstreams.workshop.secret_key, size=3 << 20)
    rest = asyncio.Event()
    async with UpstreamServer() as upstream:
        upstream.on(path.narinfo_target, Reply(body=path.text))
        upstream.on(path.nar_target, Reply(body=path.nar, pause=rest, after=2 << 20))
        sections = [substituter(upstream.url, upstreams.key, stall_timeout="20s")]
        settings = {"drain_timeout": "30s"}
        async with Daemon(tmp_path / "tvix", sections, daemon=settings) as daemon:
            copying = asyncio.create_task(client.copy(daemon.url, path.store_path))
            await upstream.requested(path.nar_target)
            stopping = asyncio.create_task(daemon.stop(number))
            await daemon.logged("draining")
            await refused(daemon)
            assert not copying.done()
            rest.set()
            await copying
            await stopping
    await client.verify()


async def test_a_drain_ends_even_if_a_client_does_not(tmp_path: Path, upstreams: Upstreams) -> None:
    path = make_path("never-comes", upstreams.workshop.secret_key, size=3 << 20)
    async with UpstreamServer() as upstream:
        upstream.on(path.narinfo_target, Reply(body=path.text))
        upstream.on(path.nar_target, Reply(body=path.nar, end="stall", after=2 << 20))
        sections = [substituter(upstream.url, upstreams.key, stall_timeout="1h")]
        async with Daemon(tmp_path, sections, daemon={"drain_timeout": "500ms"}) as daemon:
            target = await daemon.nar_target(path.digits)
            async with daemon.session() as session, session.get(target) as body:
                await body.content.readexactly(1 << 20)
                await daemon.stop()
                # Not a clean end: whoever reads knows that something is missing.
                with pytest.raises(aiohttp.ClientPayloadError):
                    await body.read()


async def test_a_second_daemon_on_the_same_state_is_refused_in_one_line(
    tmp_path: Path,
) -> None:
    async with Daemon(tmp_path) as first:
        second = Daemon(tmp_path)
        await second.launch()
        assert await second.ended() == 1
        (line,) = second.lines
        assert str(first.pid) in line
        assert "in use" in line
        assert (await first.get("/healthz")).status == 200


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    async with Daemon(tmp_path / "first") as first:
        address = f"127.0.0.1:{first.port}"
        second = Daemon(tmp_path / "second", daemon={"http": address})
        await second.launch()
        assert await second.ended() == 1
        (line,) = second.lines
        assert address in line


async def test_a_state_of_another_version_is_one_line(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    async with daemon:
        pass
    (daemon.state / "format").write_text("tvixstore state, version 99\n")
    daemon.lines.clear()
    await daemon.launch()
    assert await daemon.ended() == 1
    (line,) = daemon.lines
    assert "version 99" in line


async def test_it_starts_without_any_upstream_and_says_how_they_are(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    async with UpstreamServer() as upstream:
        url = upstream.url
    sections = [substituter(url, upstreams.key, name="gone")]
    async with Daemon(tmp_path, sections) as daemon:
        answer = await daemon.get("/readyz")
        assert answer.status == 200
        before = json.loads(answer.body)
        assert before["ready"] is True
        assert [one["name"] for one in before["substituters"]] == ["gone"]

        assert (await daemon.get(f"/{'0' * 32}.narinfo")).status == 503
        answer = await daemon.get("/readyz")
        (gone,) = json.loads(answer.body)["substituters"]
        # Upstreams never change the status.
        assert (answer.status, gone["state"]) == (200, "down")
        assert gone["last_error"]
        assert gone["since"] >= before["substituters"][0]["since"]
        assert await daemon.metric("tvixstore_upstream_up", node="gone") == 0


async def test_the_log_says_where_it_listens_and_what_it_composed(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    sections = [substituter("https://me:s3cret@cache.example", upstreams.key)]
    daemon = Daemon(tmp_path, sections, daemon={"log_format": "text"})
    await daemon.launch()
    await daemon.wrote("info ready")
    await daemon.stop()
    text = daemon.text()
    assert "info listening http=http://127.0.0.1:" in text
    assert f"info state path={tmp_path}/state" in text
    assert "cache.example (nix) base_url=https://cache.example" in text
    assert "s3cret" not in text
