"""The real client at a daemon that does not let everybody in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import Authority, make_authority
from tests.support.daemon import Daemon, substituter
from tests.support.nix_client import NixClient

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.daemon import Value

READER = "reader-t0ken-of-a-test"
# As Nix writes it; of a newer one, only what the header says.
TOLD = "HTTP error 511 ('Network Authentication Required')"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "localhost")


def guarded(folder: Path, upstreams: Upstreams, *paths: str, **keys: Value) -> Daemon:
    """A daemon in front of a cache with `paths`, which wants a token."""
    folder.mkdir(exist_ok=True)
    (folder / "tokens").write_text(f"{READER} read\n")
    cache = f"file://{upstreams.of('zstd', *paths)}"
    settings = {"tokens_file": "tokens", "anonymous_read": False, **keys}
    return Daemon(folder, [substituter(cache, upstreams.key)], daemon=settings)


def with_netrc(folder: Path, upstreams: Upstreams, password: str = READER) -> NixClient:
    folder.mkdir(exist_ok=True)
    netrc = folder / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login anybody password {password}\n")
    return NixClient(folder, upstreams.key, netrc_file=str(netrc))


async def test_a_netrc_lets_nix_in(tmp_path: Path, upstreams: Upstreams, app: str) -> None:
    client = with_netrc(tmp_path / "client", upstreams)
    async with guarded(tmp_path / "tvix", upstreams, app) as daemon:
        await client.copy(daemon.url, app)
    await client.verify()


async def test_without_credentials_nix_says_why_it_gets_nothing(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient
) -> None:
    async with guarded(tmp_path / "tvix", upstreams, app) as daemon:
        copied = await client.copy(daemon.url, app, check=False)
        realised = await client.realise(daemon.url, app, check=False)
    for finished in (copied, realised):
        assert finished.code
        assert TOLD in finished.output
        assert "reading takes credentials here" in finished.output
    # It was not told that the path is missing, so there is nothing for it to remember.
    async with guarded(tmp_path / "tvix", upstreams, app, anonymous_read=True) as daemon:
        await client.copy(daemon.url, app)


async def test_nix_is_told_of_a_wrong_token_also_if_it_knows_the_cache(
    tmp_path: Path, upstreams: Upstreams, app: str
) -> None:
    folder = tmp_path / "client"
    client = with_netrc(folder, upstreams)
    (tmp_path / "note").write_text("a note that nobody has yet")
    [note] = upstreams.workshop.add(tmp_path / "note")
    async with guarded(tmp_path / "tvix", upstreams, app, note) as daemon:
        await client.realise(daemon.url, app)
        # For a week it does not ask again what this is, but for narinfos at once.
        with_netrc(folder, upstreams, "an-old-one")
        finished = await client.realise(daemon.url, note, check=False)
        assert finished.code
        assert TOLD in finished.output
        assert "these credentials are not known here" in finished.output
        assert daemon.events("access.unknown_credentials")
        with_netrc(folder, upstreams)
        await client.realise(daemon.url, note)
        assert "an-old-one" not in daemon.text()


async def test_nix_takes_our_own_certificate(
    tmp_path: Path, upstreams: Upstreams, app: str, authority: Authority
) -> None:
    client = with_netrc(tmp_path / "client", upstreams)
    keys = {"tls_cert": str(authority.chain), "tls_key": str(authority.chain)}
    async with guarded(tmp_path / "tvix", upstreams, app, **keys) as daemon:
        assert daemon.url.startswith("https://127.0.0.1:")
        finished = await client.copy(daemon.url, app, check=False)
        assert "SSL" in finished.output
        client.forget_narinfos()
        client.trust(authority.ca_file)
        await client.copy(daemon.url, app)
    await client.verify()
