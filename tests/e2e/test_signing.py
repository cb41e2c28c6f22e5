"""Clients that trust our key alone: whatever comes through carries it, beside what was there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.caches import assert_same_tree
from tests.support.composed import ComposedDaemon, local_store
from tests.support.daemon import Daemon, substituter
from tests.support.nix_client import NixClient
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.nix import NarInfo, SecretKey
from tvixstore.pathinfo import Description, Signer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams

OURS = SecretKey.generate("ours-1")


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    file = tmp_path / "ours.sec"
    file.touch(0o600)
    file.write_text(OURS.text)
    return str(file)


@pytest.fixture
def trusting(tmp_path: Path) -> list[NixClient]:
    """Two clients that trust our key, and not the one of the upstream."""
    return [NixClient(tmp_path / f"trusting-{n}", str(OURS.public_key)) for n in (1, 2)]


async def assert_installed(upstreams: Upstreams, client: NixClient, store_path: str) -> None:
    for path in upstreams.workshop.closure(store_path):
        assert_same_tree(upstreams.workshop.original(path), client.path(path))
        names = sorted(each.partition(":")[0] for each in await client.signatures(path))
        assert names == ["ours-1", "workshop-1"]
    await client.verify_signatures(store_path)


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_who_trusts_our_key_alone_copies_cold_and_warm(
    compression: str,
    tmp_path: Path,
    upstreams: Upstreams,
    app: str,
    key_file: str,
    trusting: list[NixClient],
) -> None:
    settings = {"sign_with": key_file, "nar_compression": compression}
    async with UpstreamServer() as upstream:
        upstream.serve_directory(upstreams.of("xz", app))
        section = substituter(upstream.url, upstreams.key)
        async with Daemon(tmp_path / "tvix", [section], daemon=settings) as daemon:
            digits = app.removeprefix("/nix/store/")[:32]
            cold = await _narinfo(daemon, digits)
            await trusting[0].copy(daemon.url, app)
            await daemon.settled()
            upstream.otherwise(lambda _: Reply(status=500))
            warm = await _narinfo(daemon, digits)
            await trusting[1].realise(daemon.url, app)
    for client in trusting:
        await assert_installed(upstreams, client, app)
    assert cold.signatures == warm.signatures
    assert [each.name for each in cold.signatures] == ["workshop-1", "ours-1"]
    assert cold.url != warm.url


async def test_without_our_key_such_a_client_takes_nothing(
    tmp_path: Path, upstreams: Upstreams, app: str, trusting: list[NixClient]
) -> None:
    folder = upstreams.of("xz", app)
    section = substituter(f"file://{folder}", upstreams.key)
    async with Daemon(tmp_path / "tvix", [section]) as daemon:
        refused = await trusting[0].copy(daemon.url, app, check=False)
    assert refused.code != 0 and "signature" in refused.output
    assert not trusting[0].has(app)


async def test_a_near_that_signs_signs_what_is_filled_into_it(
    tmp_path: Path, upstreams: Upstreams, app: str, key_file: str, trusting: list[NixClient]
) -> None:
    services = local_store()
    services["pathinfoservices"] = {
        "root": {"type": "cache", "near": "signing", "far": "upstream"},
        "signing": {"type": "keyfile-signing", "inner": "disk", "keyfile": key_file},
        "disk": {"type": "local", "path": "./state"},
        "upstream": {
            "type": "nix",
            "base_url": f"file://{upstreams.of('xz', app)}",
            "public_keys": [upstreams.key],
        },
    }
    digits = app.removeprefix("/nix/store/")[:32]
    async with ComposedDaemon(tmp_path / "tvix", services) as daemon:
        before = await _narinfo(daemon, digits)
        for path in upstreams.workshop.closure(app):
            target = await daemon.nar_target(path.removeprefix("/nix/store/")[:32])
            assert (await daemon.get(target)).status == 200
        await daemon.settled()
        after = await _narinfo(daemon, digits)
        await trusting[0].copy(daemon.url, app)
    assert [each.name for each in before.signatures] == ["workshop-1"]
    assert [each.name for each in after.signatures] == ["workshop-1", "ours-1"]
    await assert_installed(upstreams, trusting[0], app)


def test_nix_makes_the_very_same_signature(upstreams: Upstreams, app: str) -> None:
    folder = upstreams.of("xz", app)
    narinfo = NarInfo.parse((folder / f"{app[11:43]}.narinfo").read_text())
    description = Description(
        store_path=narinfo.store_path,
        nar_sha256=narinfo.nar_sha256,
        nar_size=narinfo.nar_size,
        references=narinfo.references,
    )
    made = Signer(upstreams.workshop.secret_key).signed(description)
    assert made.signatures == narinfo.signatures


async def _narinfo(daemon: Daemon, digits: str) -> NarInfo:
    answer = await daemon.get(f"/{digits}.narinfo")
    assert answer.status == 200, answer
    return NarInfo.parse(answer.body.decode())
