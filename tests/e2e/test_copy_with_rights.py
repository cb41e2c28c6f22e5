"""`tvix-store copy`, and what administers, at daemons that want a token; Nix where a key has to."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import Authority, make_authority
from tests.support.command import tvix_store
from tests.support.composed import ComposedDaemon, local_store
from tests.support.daemon import Daemon
from tests.support.pusher import Pusher
from tvixstore.nix import SecretKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.command import Done
    from tests.support.daemon import Value
    from tests.support.nix_client import NixClient

READER, PUSHER, ADMIN = "s3cret-reader", "s3cret-pusher", "s3cret-admin"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), "localhost")


class Guarded:
    """A daemon behind TLS and tokens, for both front doors, and who comes to it."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        folder.mkdir()
        tokens = f"{READER} read\n{PUSHER} read,write\n{ADMIN} admin\n"
        (folder / "tokens").write_text(tokens)
        for token in (READER, PUSHER, ADMIN):
            (folder / token).write_text(f"{token}\n")
        settings: dict[str, Value] = {
            "tokens_file": "tokens",
            "anonymous_read": False,
            "tls_cert": str(authority.chain),
            "tls_key": str(authority.chain),
        }
        self.daemon = ComposedDaemon(folder, local_store(), settings)
        self._ca_file = str(authority.ca_file)

    @property
    def grpc(self) -> str:
        return f"grpc+{self.daemon.grpc}"

    @property
    def address(self) -> str:
        """Where it listens for gRPC, for the compose file of those who connect to it."""
        return self.daemon.grpc.removeprefix("https://")

    def as_(self, token: str | None, prefix: str = "") -> list[str]:
        """The options of somebody who trusts it, and has that token."""
        options = [f"--{prefix}ca-file", self._ca_file]
        if token is not None:
            options += [f"--{prefix}token-file", str(self.daemon.folder / token)]
        return options


@pytest.fixture
async def house(tmp_path: Path, authority: Authority) -> AsyncIterator[tuple[Guarded, Guarded]]:
    one, other = (Guarded(tmp_path / name, authority) for name in ("one", "other"))
    async with AsyncExitStack() as stack:
        for each in (one, other):
            await stack.enter_async_context(each.daemon)
        yield one, other
    for each in (one, other):
        assert "s3cret" not in each.daemon.text()


async def run(*arguments: str, code: int = 0, said: str = "", **options: Any) -> Done:
    done = await tvix_store(*arguments, **options)
    assert done.code == code, done
    assert said in done.err, done
    # One line that says it, and no event of the log beside it.
    assert not code or len(done.err.splitlines()) == 1, done
    assert "s3cret" not in done.err + done.out
    return done


async def test_a_closure_goes_from_daemon_to_daemon_with_a_token_for_each(
    upstreams: Upstreams, app: str, house: tuple[Guarded, Guarded]
) -> None:
    one, other = house
    source = ("--from", f"file://{upstreams.of('none', app)}", "--public-keys", upstreams.key)
    into = ("copy", "-q", *source, "--to", one.grpc, app)
    await run(*into, code=4, said="its certificate is not to be trusted")
    await run(*into, *one.as_(None), code=4, said="UNAUTHENTICATED")
    await run(*into, *one.as_(READER), code=1, said="the token lacks the right `write`")
    await run(*into, *one.as_(PUSHER))

    across = ("copy", "-q", "--from", one.grpc, "--to", other.grpc, app)
    await run(*across, *one.as_(READER, "from-"), *other.as_(READER, "to-"), code=1)
    await run(*across, *one.as_(READER, "from-"), *other.as_(PUSHER, "to-"))
    known = ("info", "--json", "--from", other.grpc, *other.as_(READER), app)
    (told,) = json.loads((await run(*known)).out)
    assert told["content"] is True


async def test_a_daemon_of_ours_is_a_cache_that_takes_puts_with_a_token(
    tmp_path: Path,
    upstreams: Upstreams,
    app: str,
    client: NixClient,
    house: tuple[Guarded, Guarded],
) -> None:
    one, _ = house
    source = ("--from", f"file://{upstreams.of('xz', app)}", "--public-keys", upstreams.key)
    into = ("copy", "--json", "-q", *source, "--to", one.daemon.url, app)
    refused = await run(*into, *one.as_(None), code=1, said="(status 401)")
    assert "--to-token-file" in refused.err
    await run(*into, *one.as_(READER), code=1, said="(status 403)")
    closure = upstreams.workshop.closure(app)
    told = json.loads((await run(*into, *one.as_(PUSHER))).out)
    assert {each["path"] for each in told["paths"]} == set(closure)
    again = json.loads((await run(*into, *one.as_(PUSHER))).out)
    assert again["skipped"] == len(closure)
    # A cache is told of as one: what it says, without what only a store has.
    known = ("info", "--json", "--from", one.daemon.url)
    (said,) = json.loads((await run(*known, *one.as_(READER), app)).out)
    assert said["path"] == app and said["root"] is said["content"] is None
    await run(*known, *one.as_(None), app, code=4, said="(status 401)")
    folder = f"file://{tmp_path / 'cache'}"
    await run("copy", "-q", "--from", one.grpc, *one.as_(READER, "from-"), "--to", folder, app)
    await client.copy(folder, app)
    await client.verify()


@pytest.mark.parametrize("compression", ["zstd", "none"])
async def test_a_daemon_of_ours_takes_puts_of_this_machine_without_a_token(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient, compression: str
) -> None:
    source = ("--from", f"file://{upstreams.of('xz', app)}", "--public-keys", upstreams.key)
    async with Daemon(tmp_path / "tvix") as daemon:
        where = ("--to", daemon.url, "--compression", compression)
        await run("copy", "-q", *source, *where, app)
        await client.copy(daemon.url, app)
    await client.verify()
    async with Daemon(tmp_path / "shut", daemon={"writes": False}) as daemon:
        into = ("copy", "-q", *source, "--to", daemon.url, app)
        await run(*into, code=1, said="(status 403)")


async def test_pins_and_checks_take_the_right_to_administer(
    tmp_path: Path, upstreams: Upstreams, app: str, house: tuple[Guarded, Guarded]
) -> None:
    one, _ = house
    source = ("--from", f"file://{upstreams.of('none', app)}", "--public-keys", upstreams.key)
    await run("copy", "-q", *source, "--to", one.grpc, *one.as_(PUSHER), app)
    # The compose file of whoever administers from elsewhere says where and how.
    (tmp_path / "compose.toml").write_text(
        f'[daemon]\ngrpc = "{one.address}"\ntls_cert = "its.pem"\ntls_key = "its.pem"\n'
    )
    for command in (("pin", app), ("unpin", app), ("pins",), ("verify",)):
        await run(*command, *one.as_(None), code=4, said="UNAUTHENTICATED", cwd=tmp_path)
        lacking = "the token lacks the right `admin`"
        await run(*command, *one.as_(PUSHER), code=1, said=lacking, cwd=tmp_path)
    admin = one.as_(ADMIN)
    await run("pin", app, "--no-fetch", *admin, cwd=tmp_path)
    (told,) = json.loads((await run("pins", "--json", *admin, cwd=tmp_path)).out)
    assert told["path"] == app and told["missing"] == []
    await run("verify", *admin, said="all sound", cwd=tmp_path)
    await run("unpin", app, *admin, cwd=tmp_path)
    assert (await run("pins", *admin, cwd=tmp_path)).out == ""


async def test_nix_is_told_whose_signature_its_upload_lacks(
    tmp_path: Path, upstreams: Upstreams, app: str, client: NixClient
) -> None:
    pusher = Pusher(tmp_path / "pusher", upstreams.workshop)
    stranger = str(SecretKey.generate("stranger-1").public_key)
    async with Daemon(tmp_path / "closed", daemon={"require_signature": [stranger]}) as daemon:
        refused = await pusher.push(daemon.url, app, check=False)
        assert refused.code and "HTTP error 403" in refused.output, refused
        assert "by one of stranger-1 (require_signature)" in refused.output
        digits = app.removeprefix("/nix/store/")[:32]
        assert (await daemon.get(f"/{digits}.narinfo")).status == 404
    keys = [stranger, upstreams.key]
    async with Daemon(tmp_path / "open", daemon={"require_signature": keys}) as daemon:
        await pusher.push(daemon.url, app)
        await client.copy(daemon.url, app)
    await client.verify()
