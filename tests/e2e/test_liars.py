"""Upstreams that lie: the next one is asked, nothing of a lie is kept, the log tells of it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import pytest
import zstandard

from tests.e2e.state import assert_nothing_is_partial, contents_of
from tests.support.caches import CACHE_INFO, MadePath, files_of, make_path, signed
from tests.support.daemon import Daemon, substituter
from tests.support.upstream_server import Reply, Seen, UpstreamServer, redirect
from tvixstore.nix import NarInfo, SecretKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.e2e.conftest import Upstreams
    from tests.support.nix_client import NixClient

# What the liar answers for the targets of one path.
Lies: TypeAlias = "dict[str, Reply]"

_HTML = b"<!DOCTYPE html><html><body>Please sign in</body></html>"
_BOMB = 256 << 20


def digest_of(nar: bytes) -> bytes:
    return hashlib.sha256(nar).digest()


def _says(path: MadePath, narinfo: NarInfo | bytes, nar: bytes | None = None) -> Lies:
    text = narinfo if isinstance(narinfo, bytes) else str(narinfo).encode()
    return {
        path.narinfo_target: Reply(body=text),
        path.nar_target: Reply(body=path.nar if nar is None else nar),
    }


def _gives(path: MadePath, nar: bytes) -> Lies:
    """An honest narinfo, and these bytes for the NAR."""
    return _says(path, path.narinfo, nar)


def _another_path(path: MadePath, key: SecretKey) -> Lies:
    return _says(path, make_path(f"not-{path.narinfo.store_path.name}", key).narinfo)


def _unsigned(path: MadePath, key: SecretKey) -> Lies:
    return _says(path, replace(path.narinfo, signatures=()))


def _signed_by_nobody(path: MadePath, key: SecretKey) -> Lies:
    (signature,) = path.narinfo.signatures
    return _says(path, replace(path.narinfo, signatures=(replace(signature, data=bytes(64)),)))


def _claims_a_size(path: MadePath, key: SecretKey) -> Lies:
    return _says(path, replace(path.narinfo, nar_size=path.narinfo.nar_size + 8))


def _claims_a_hash(path: MadePath, key: SecretKey) -> Lies:
    return _says(path, replace(path.narinfo, nar_sha256=bytes(32)))


def _bomb(compression: str, compress: Callable[[bytes], bytes]) -> Callable[..., Lies]:
    def lie(path: MadePath, key: SecretKey) -> Lies:
        return _says(path, replace(path.narinfo, compression=compression), compress(bytes(_BOMB)))

    return lie


def _other_bytes(path: MadePath, key: SecretKey) -> Lies:
    return _gives(path, path.nar[:500] + b"!" + path.nar[501:])


def _endless_nar(path: MadePath, key: SecretKey) -> Lies:
    return {**_says(path, path.narinfo), path.nar_target: Reply(body=bytes(64 << 20), announced=-1)}


# By the lie's name: what is answered, and what the log has to say of it.
LIES: dict[str, tuple[Callable[[MadePath, SecretKey], Lies], str]] = {
    "a narinfo for another path": (_another_path, "another path"),
    "an unsigned narinfo": (_unsigned, "no trusted signature"),
    "a wrong signature": (_signed_by_nobody, "no trusted signature"),
    "a wrong NarHash": (_claims_a_hash, "no trusted signature"),
    "a wrong NarSize": (_claims_a_size, "no trusted signature"),
    "other bytes": (_other_bytes, "hashes to"),
    "a truncated NAR": (lambda path, key: _gives(path, path.nar[:-16]), "bytes long instead of"),
    "an endless NAR": (_endless_nar, "longer than"),
    "a zstd bomb": (_bomb("zstd", zstandard.compress), "longer than"),
    "a gzip bomb": (_bomb("gzip", gzip.compress), "longer than"),
    "HTML for a NAR": (lambda path, key: _gives(path, _HTML), "instead of"),
    "HTML for a narinfo": (lambda path, key: _says(path, _HTML), "page"),
    "an endless narinfo": (lambda path, key: _says(path, path.text + b"X: y\n" * 600_000), "long"),
    "half a narinfo": (lambda path, key: _says(path, path.text[:70]), "narinfo"),
    "a redirect loop for a narinfo": (
        lambda path, key: {path.narinfo_target: redirect(path.narinfo_target)},
        "redirect",
    ),
    "a redirect loop for a NAR": (
        lambda path, key: {
            **_says(path, path.narinfo),
            path.nar_target: redirect(path.nar_target),
        },
        "redirect",
    ),
}


# Lies that only somebody with the key can tell, and what the log has to say of them.
SIGNED_LIES: dict[str, tuple[Callable[[NarInfo, bytes], tuple[NarInfo, bytes]], str]] = {
    "a wrong NarHash": (
        lambda narinfo, nar: (replace(narinfo, nar_sha256=bytes(32)), nar),
        "hashes to",
    ),
    "a NarSize too small": (
        lambda narinfo, nar: (replace(narinfo, nar_size=len(nar) - 8), nar),
        "longer than",
    ),
    "a NarSize too large": (
        lambda narinfo, nar: (replace(narinfo, nar_size=len(nar) + 8), nar),
        "bytes long instead of",
    ),
    "no NAR at all": (
        lambda narinfo, nar: (
            replace(narinfo, nar_sha256=digest_of(bytes(len(nar)))),
            bytes(len(nar)),
        ),
        "cannot be unpacked",
    ),
}


@asynccontextmanager
async def beside_an_honest_one(
    folder: Path, upstreams: Upstreams, path: MadePath
) -> AsyncIterator[tuple[UpstreamServer, Daemon]]:
    """A server to be made a liar, which a daemon asks first, before one that has `path`."""
    async with UpstreamServer() as liar, UpstreamServer() as honest:
        serve(honest, files_of([path]))
        substituters = [
            substituter(liar.url, upstreams.key, name="liar", priority=10),
            substituter(honest.url, upstreams.key, name="honest", priority=20),
        ]
        async with Daemon(folder / "tvix", substituters) as daemon:
            yield liar, daemon


def serve(server: UpstreamServer, files: dict[str, bytes]) -> None:
    def script(seen: Seen) -> Reply:
        return Reply(body=files[seen.path]) if seen.path in files else Reply(status=404)

    server.otherwise(script)


def assert_told(daemon: Daemon, reason: str) -> None:
    """The log says, where nobody can miss it, that the liar did that."""
    told = [
        event
        for event in daemon.log
        if event.get("node") == "liar"
        and event["level"] in ("warning", "error")
        and reason in event.get("reason", "")
    ]
    assert told, daemon.text()


@pytest.mark.parametrize("lie", LIES)
async def test_who_lies_is_passed_over_and_named_in_the_log(
    lie: str, tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    key = upstreams.workshop.secret_key
    path = make_path(lie.replace(" ", "-"), key)
    make, reason = LIES[lie]
    async with beside_an_honest_one(tmp_path, upstreams, path) as (liar, daemon):
        for target, reply in make(path, key).items():
            liar.on(target, reply)
        await client.copy(daemon.url, path.store_path)
        await daemon.settled()
        assert liar.seen(path.narinfo_target)
        assert_told(daemon, reason)
    await client.verify()
    assert await assert_nothing_is_partial(daemon.state) == [path.store_path]
    assert (await contents_of(daemon.state)).rows["chunks"] == 1


@pytest.mark.parametrize("lie", SIGNED_LIES)
async def test_a_lie_with_a_good_signature_is_promised_and_never_kept(
    lie: str, tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    key = upstreams.workshop.secret_key
    path = make_path(lie.replace(" ", "-"), key)
    make, reason = SIGNED_LIES[lie]
    narinfo, nar = make(path.narinfo, path.nar)
    async with beside_an_honest_one(tmp_path, upstreams, path) as (liar, daemon):
        liar.on(path.narinfo_target, Reply(body=str(signed(narinfo, key)).encode()))
        liar.on(path.nar_target, Reply(body=nar))
        target = await daemon.nar_target(path.digits)
        with suppress(aiohttp.ClientPayloadError):
            answer = await daemon.get(target)
            # What was signed may come, but nothing else.
            assert answer.status == 503 or digest_of(answer.body) == narinfo.nar_sha256
        await daemon.settled()
        assert_told(daemon, reason)
        # From now on the other one's word counts.
        await client.copy(daemon.url, path.store_path)
        await daemon.settled()
    await client.verify()
    assert await assert_nothing_is_partial(daemon.state) == [path.store_path]
    assert (await contents_of(daemon.state)).rows["chunks"] == 1


async def test_a_cache_of_another_store_is_passed_over(
    tmp_path: Path, upstreams: Upstreams, client: NixClient
) -> None:
    path = make_path("of-another-store", upstreams.workshop.secret_key)
    files = files_of([path])
    async with UpstreamServer() as other, UpstreamServer() as ours:
        serve(other, {**files, "/nix-cache-info": CACHE_INFO.replace(b"/nix/", b"/gnu/")})
        serve(ours, files)
        substituters = [
            substituter(other.url, upstreams.key, name="other", priority=10),
            substituter(ours.url, upstreams.key, name="ours", priority=20),
        ]
        async with Daemon(tmp_path / "tvix", substituters) as daemon:
            await client.copy(daemon.url, path.store_path)
            assert "/gnu/store" in daemon.text()
        assert other.seen("/nix-cache-info")
        assert not other.seen(path.nar_target)
    await client.verify()


async def test_a_hundred_lying_nars_leave_nothing_behind(
    tmp_path: Path, upstreams: Upstreams
) -> None:
    key = upstreams.workshop.secret_key
    # Some are verified before their first byte goes out, some are streamed.
    paths = [make_path(f"lie-{n}", key, size=(1 << 20) * (n % 3) + 1000 * n) for n in range(100)]
    damages: list[Callable[[bytes], bytes]] = [
        lambda nar: nar[:-9] + b"!" + nar[-8:],
        lambda nar: nar[: len(nar) // 2],
        lambda nar: nar + bytes(1000),
        lambda nar: bytes(len(nar)),
    ]
    files = files_of(paths)
    for number, path in enumerate(paths):
        files[path.nar_target] = damages[number % len(damages)](path.nar)

    async def ask(daemon: Daemon, path: MadePath) -> None:
        target = await daemon.nar_target(path.digits)
        try:
            answer = await daemon.get(target)
        except aiohttp.ClientPayloadError:
            return
        assert answer.status == 503, path.narinfo

    async with UpstreamServer() as liar:
        serve(liar, files)
        liars = [substituter(liar.url, upstreams.key, name="liar", breaker_failures=1000)]
        daemon = Daemon(tmp_path, liars)
        async with daemon:
            await asyncio.gather(*(ask(daemon, path) for path in paths))
            await daemon.settled()
            assert await daemon.metric("tvixstore_fills_total", outcome="failed") >= 100
        assert all(liar.seen(path.nar_target) for path in paths)
    contents = await contents_of(daemon.state)
    assert contents.is_empty, contents
