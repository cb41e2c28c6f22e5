"""Realisations, logs and debug information of an upstream reach the real client through us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.caches import assert_same_tree
from tests.support.daemon import Daemon, substituter
from tests.support.pusher import Pusher
from tests.support.upstream_server import Reply, UpstreamServer

if TYPE_CHECKING:
    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

EXPRESSION = Path(__file__).with_name("uploaded.nix")
DEBUG = "/debuginfo/483bd7f7229bdb06462222e1e353e4f37e15c293.debug"


async def test_they_come_through_and_stay_when_the_upstream_is_gone(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    workshop = upstreams.workshop
    above, below, debugged = workshop.build(EXPRESSION, "above", "below", "debugged")
    cache = tmp_path / "cache"
    publisher = Pusher(tmp_path / "publisher", workshop)
    attributes = ("-f", str(EXPRESSION), "above", "below", "debugged")
    where = ("--store", str(publisher.store), "--to", f"file://{cache}?index-debug-info=true")
    await publisher.run("nix", "copy", *where, *attributes)
    await publisher.run("nix", "store", "copy-log", *where, debugged)
    async with UpstreamServer() as upstream:
        upstream.serve_directory(cache)
        async with Daemon(tmp_path / "tvix", [substituter(upstream.url, None)]) as daemon:
            options = ("--option", "substituters", daemon.url, "--option", "require-sigs", "false")
            build = ("nix", "build", "--no-link", "-f", str(EXPRESSION), "above", "-j0")
            consumer = Pusher(tmp_path / "consumer", workshop)
            await consumer.run(*build, "--store", str(client.store), *options)
            log = await consumer.run("nix", "log", "--store", daemon.url, debugged)
            assert log.output.endswith("\nthis goes to the log\n")
            # The document stays as it is, and so its link has to lead somewhere here.
            document = (await daemon.get(DEBUG)).body
            archive = json.loads(document)["archive"].removeprefix("..")
            nar = await daemon.get(archive)
            assert (nar.status, nar.body) == (200, (cache / archive.lstrip("/")).read_bytes())
            asked = len(upstream.log)
            upstream.otherwise(lambda _: Reply(status=500))
            again = await Pusher(tmp_path / "again", workshop).run(
                "nix", "log", "--store", daemon.url, debugged
            )
            assert again.output == log.output
            assert (await daemon.get(DEBUG)).body == document
            assert len(upstream.log) == asked
            # Of what is not here, nobody knows any more.
            assert (await daemon.get(f"/log/{'0' * 32}-other.drv")).status == 503
    for path in (above, below):
        assert_same_tree(workshop.original(path), client.path(path))
