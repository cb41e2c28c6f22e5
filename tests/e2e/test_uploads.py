"""The real Nix client pushes into a daemon, and others take it from there."""

from __future__ import annotations

import asyncio
import io
import json
import lzma
import random
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import aiohttp
import pytest

from tests.support.caches import assert_same_tree, make_path
from tests.support.daemon import Daemon
from tests.support.pusher import Pusher
from tvixstore.nix import StorePath

if TYPE_CHECKING:
    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

EXPRESSION = Path(__file__).with_name("uploaded.nix")
# By what Nix calls the compression; what it does not call a suffix for is sniffed.
COMPRESSIONS = ("none", "xz", "zstd", "bzip2", "gzip", "lzma", "br", "lz4")


@pytest.fixture
def pusher(tmp_path: Path, upstreams: Upstreams) -> Pusher:
    return Pusher(tmp_path / "pusher", upstreams.workshop)


@pytest.fixture(scope="session")
def little(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A path for each compression, of 300 kB, half of which compresses."""
    folder = tmp_path_factory.mktemp("little")
    for name in COMPRESSIONS:
        text = f"of {name}\n".encode() * 15_000
        (folder / name).write_bytes(text + random.Random(name).randbytes(150_000))
    return upstreams.workshop.add(*[folder / name for name in COMPRESSIONS])


async def test_every_compression_comes_in_and_is_installed_elsewhere(
    tmp_path: Path, upstreams: Upstreams, little: list[str], pusher: Pusher, client: NixClient
) -> None:
    async with Daemon(tmp_path / "tvix") as daemon:
        for compression, path in zip(COMPRESSIONS, little, strict=True):
            await pusher.push(daemon.url, path, compression=compression)
        await client.realise(daemon.url, *little)
        # Whoever uploaded it remembers its narinfo, and asks for the file by its name.
        names = COMPRESSIONS.index("lzma")
        own = [*little[:names], *little[names + 1 :]]
        store = str(tmp_path / "pushers-store")
        options = ("--no-check-sigs", "--store", store)
        await pusher.run("nix", "copy", "--from", daemon.url, *options, *own)
        assert await daemon.metric("tvixstore_requests_total", status="503") == 0
    for path in little:
        assert_same_tree(upstreams.workshop.original(path), client.path(path))
    for path in own:
        assert_same_tree(upstreams.workshop.original(path), Path(store + path))
    await client.verify()


async def test_a_compression_that_is_not_taken_is_named(
    tmp_path: Path, little: list[str], pusher: Pusher
) -> None:
    async with Daemon(tmp_path / "tvix") as daemon:
        for attempts, compression in enumerate(("lzip", "compress"), 1):
            path = little[0]
            finished = await pusher.push(daemon.url, path, compression=compression, check=False)
            assert finished.code
            assert f"NARs compressed with {compression} are not taken" in finished.output
            # At once, without another attempt.
            refused = await daemon.metric("tvixstore_requests_total", route="nar", status="400")
            assert refused == attempts


async def test_a_closure_comes_with_everything_and_survives_a_restart(
    tmp_path: Path, upstreams: Upstreams, app: str, pusher: Pusher, client: NixClient
) -> None:
    debugged = upstreams.workshop.build(EXPRESSION, "debugged")[0]
    daemon = Daemon(tmp_path / "tvix")
    async with daemon:
        both = (daemon.url, app, debugged)
        await pusher.push(*both, write_nar_listing="1", index_debug_info="true")
        # All of it is there.
        again = await pusher.push(*both, write_nar_listing="1", index_debug_info="true")
        assert "copying path" not in again.output
        await pusher.run("nix", "store", "copy-log", "--store", str(pusher.store), "--to",
                         daemon.url, debugged)  # fmt: skip
    async with daemon:
        await client.realise(daemon.url, app, debugged)
        shown = await pusher.run("nix", "store", "ls", "-R", "--store", daemon.url, app)
        assert "./share/ünïcödé ☃/日本語.txt" in shown.output
        shown = await pusher.run("nix", "store", "cat", "--store", daemon.url, f"{app}/bin/app")
        assert shown.output.startswith("#!/bin/sh\n")
        log = await pusher.run("nix", "log", "--store", daemon.url, debugged)
        assert log.output.endswith("\nthis goes to the log\n")
        await follow_debug_information(daemon)
    for path in (app, debugged):
        assert_same_tree(upstreams.workshop.original(path), client.path(path))
    await client.verify()


async def follow_debug_information(daemon: Daemon) -> None:
    """As whoever debugs does: from the build id to the member of the NAR."""
    target = "/debuginfo/483bd7f7229bdb06462222e1e353e4f37e15c293.debug"
    async with aiohttp.ClientSession() as session, session.get(daemon.url + target) as response:
        assert response.status == 200
        found = json.loads(await response.read())
        # The link is relative to the document.
        async with session.get(urljoin(daemon.url + target, found["archive"])) as nar:
            packed = await nar.read()
    assert found["member"].rpartition("/")[2].encode() in lzma.decompress(packed)


async def test_signatures_are_added_and_verified_over_http(
    tmp_path: Path, upstreams: Upstreams, app: str, pusher: Pusher, client: NixClient
) -> None:
    async with Daemon(tmp_path / "tvix") as daemon:
        await pusher.push(daemon.url, app, sign=False)
        refused = await client.realise(daemon.url, app, check=False)
        assert refused.code and "signed by any of the keys" in refused.output
        # By URLs of our own, from somebody who remembers none of his.
        signer = Pusher(tmp_path / "signer", upstreams.workshop)
        key = ("--key-file", str(signer.key_file))
        await signer.run("nix", "store", "sign", "-r", "--store", daemon.url, *key, app)
        verify = ("nix", "store", "verify", "-r", "--store", daemon.url, app)
        trust = ("--option", "trusted-public-keys", upstreams.key)
        await Pusher(tmp_path / "verifier", upstreams.workshop).run(*verify, *trust)
        client.forget_narinfos()
        await client.realise(daemon.url, app)


async def test_content_addressed_derivations_come_with_their_realisations(
    tmp_path: Path, upstreams: Upstreams, pusher: Pusher, client: NixClient
) -> None:
    above, below = upstreams.workshop.build(EXPRESSION, "above", "below")
    where = ("--store", str(pusher.store), "-f", str(EXPRESSION), "above", "below")
    async with Daemon(tmp_path / "tvix") as daemon:
        await pusher.run("nix", "copy", "--to", daemon.url, *where)
        # Nix does not sign realisations on their way, so they need no signature here either.
        options = ("--option", "substituters", daemon.url, "--option", "require-sigs", "false")
        build = ("nix", "build", "--no-link", "-f", str(EXPRESSION), "above", "-j0")
        consumer = Pusher(tmp_path / "consumer", upstreams.workshop)
        await consumer.run(*build, "--store", str(client.store), *options)
        assert await daemon.metric(
            "tvixstore_requests_total", route="realisation", status="200"
        ) == len({above, below})
    for path in (above, below):
        assert_same_tree(upstreams.workshop.original(path), client.path(path))


@pytest.mark.slow
async def test_two_push_the_same_at_once(
    tmp_path: Path, upstreams: Upstreams, app: str, pusher: Pusher, client: NixClient
) -> None:
    second = Pusher(tmp_path / "second", upstreams.workshop)
    async with Daemon(tmp_path / "tvix") as daemon:
        await asyncio.gather(
            pusher.push(daemon.url, app, compression="zstd"),
            second.push(daemon.url, app, compression="xz"),
        )
        await client.realise(daemon.url, app)
    assert_same_tree(upstreams.workshop.original(app), client.path(app))


async def test_an_upload_that_is_killed_leaves_nothing_and_comes_again(
    tmp_path: Path, upstreams: Upstreams, pusher: Pusher, app: str, client: NixClient
) -> None:
    path = make_path("cut-off", upstreams.workshop.secret_key, size=5 << 20)
    daemon = Daemon(tmp_path / "tvix")
    await daemon.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    head = f"PUT {path.nar_target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(path.nar)}\r\n\r\n"
    writer.write(head.encode() + path.nar[: len(path.nar) // 2])
    await writer.drain()
    # Some chunks of it are written.
    async with asyncio.timeout(60):
        while await daemon.metric("tvixstore_store_bytes", kind="chunks") == 0:
            pass
    await daemon.kill()
    writer.close()
    async with daemon:
        assert (await daemon.get(path.nar_target, "HEAD")).status == 404
        await pusher.push(daemon.url, app)
        async with daemon.session() as session:
            # Late, and after another restart.
            async with session.put(path.nar_target, data=io.BytesIO(path.nar)) as response:
                assert response.status == 201
    async with daemon:
        assert (await daemon.get(path.nar_target, "HEAD")).status == 200
        async with daemon.session() as session:
            async with session.put(path.narinfo_target, data=path.text) as response:
                assert response.status == 201
        await client.realise(daemon.url, app, path.store_path)


@pytest.mark.slow
async def test_in_the_long_form_uploads_go_to_the_near_tier(
    tmp_path: Path, upstreams: Upstreams, app: str, pusher: Pusher, client: NixClient
) -> None:
    async with Daemon(tmp_path / "far") as far:
        text = LONG.format(far=far.url)
        daemon = Daemon(tmp_path / "tvix")
        daemon.compose.write_text(text)
        async with daemon:
            await pusher.push(daemon.url, app)
        assert (await far.get(f"/{app[11:43]}.narinfo")).status == 404
    # And that it is all there: far is gone by now.
    async with daemon:
        await client.realise(daemon.url, app)


LONG = """
[daemon]
http = "127.0.0.1:0"
grpc = "off"
state = "./state"
log_format = "json"

[blobservices.root]
type = "local"
path = "./state"

[directoryservices.root]
type = "local"
path = "./state"

[pathinfoservices.root]
type = "cache"
near = "near"
far = "far"

[pathinfoservices.near]
type = "local"
path = "./state"

[pathinfoservices.far]
type = "nix"
base_url = "{far}"
"""


async def test_a_store_that_is_too_small_takes_what_comes_and_lets_the_oldest_go(
    tmp_path: Path, upstreams: Upstreams, pusher: Pusher
) -> None:
    files = [tmp_path / f"pushed-{number}" for number in range(6)]
    for number, file in enumerate(files):
        file.write_bytes(random.Random(number).randbytes(400_000))
    paths = upstreams.workshop.add(*files)
    async with Daemon(tmp_path / "tvix", store={"max_size": "2MiB", "min_free": 0}) as daemon:
        for path in paths:
            await pusher.push(daemon.url, path, compression="none")
        found = [
            (await daemon.get(f"/{StorePath.from_absolute(path).digits}.narinfo")).status == 200
            for path in paths
        ]
        assert found[-1] and not found[0]
        assert await daemon.metric("tvixstore_evictions_total") == found.count(False)
        used = [
            await daemon.metric("tvixstore_store_bytes", kind=kind) for kind in ("chunks", "index")
        ]
        assert sum(used) <= 2 << 20
        # What is gone can be pushed again.
        again = Pusher(tmp_path / "again", upstreams.workshop)
        await again.push(daemon.url, paths[0], compression="none")
