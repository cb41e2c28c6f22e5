"""Both ends of a copy, opened: what `--from` and `--to` name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tvixstore.blob import MemoryBlobService
from tvixstore.castore import SizeRule
from tvixstore.cli.clients import Credentials, Workshop, open_client, open_workshop
from tvixstore.cli.find import find, load
from tvixstore.cli.places import CachePlace, ComposePlace, Place
from tvixstore.directory import MemoryDirectoryService
from tvixstore.errors import ConfigError
from tvixstore.kv import MemoryKeyValue
from tvixstore.nix import KeyRing, PublicKey
from tvixstore.pathinfo import PathInfoService, RememberedAnswers, RetryPathInfoService
from tvixstore.pathinfo.nix import NixPathInfoService, UpstreamSettings, open_upstream
from tvixstore.policy.retry import Retry
from tvixstore.transfer import (
    CacheTarget,
    Compression,
    FolderCache,
    HttpCache,
    Source,
    StoreTarget,
    Target,
    Trust,
)
from tvixstore.tree import Content

# A command has more patience than a proxy: seconds to headers, to a connection, and without a byte.
_TIMEOUT, _CONNECT, _STALL = 30.0, 10.0, 60.0
_RETRIES = 4
_RETRY = Retry(attempts=1 + _RETRIES, min_delay=0.2, max_delay=30.0)


@dataclass(frozen=True, slots=True)
class CopySettings:
    """What is to be known beside the two places."""

    trust: Trust
    from_credentials: Credentials = Credentials()
    to_credentials: Credentials = Credentials()
    compression: Compression = "zstd"
    # Of Directories that are made of NARs for a daemon; a composition says it itself.
    directory_sizes: Literal["documented", "doubled"] = "documented"


@asynccontextmanager
async def open_ends(
    source: Place, target: Place, settings: CopySettings
) -> AsyncIterator[tuple[Source, Target]]:
    """Raises `ConfigError` for what cannot be opened."""
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(_open_target(target, settings))
        yield (
            await stack.enter_async_context(_open_source(source, opened, target, settings)),
            opened,
        )


@asynccontextmanager
async def open_cache(place: CachePlace, credentials: Credentials) -> AsyncIterator[PathInfoService]:
    """What a binary cache says of paths; nothing is read from it into anywhere."""
    async with open_workshop() as workshop:
        nowhere = Content(MemoryBlobService(), MemoryDirectoryService())
        yield _substituter(place, credentials, workshop, nowhere, keeping=False)


def trust_for(
    source: Place, public_keys: Sequence[PublicKey], *, check: bool, compose: Path | None
) -> Trust:
    """Whom to believe of what comes from `source`.

    A daemon or a composition is believed unless keys are given. A binary cache is not: without keys
    those count that the compose file has for it. Raises `ConfigError` if there are none.
    """
    if not check:
        return Trust()
    keys = list(public_keys)
    if isinstance(source, CachePlace):
        keys += [PublicKey.parse(key) for key in source.public_keys]
        keys = keys or _configured_keys(source, compose)
        if not keys:
            raise ConfigError(
                f"{source}: nobody is known whose signatures on what it has are to be trusted: "
                "name keys with --public-keys NAME:KEY, or take everything with --no-check-sigs"
            )
    return Trust(KeyRing(keys)) if keys else Trust()


def _configured_keys(source: CachePlace, compose: Path | None) -> list[PublicKey]:
    config = load(find(compose))
    return [
        *config.daemon.public_keys,
        *(
            key
            for substituter in config.substituters
            if substituter.url.rstrip("/") == source.url.rstrip("/")
            for key in substituter.public_keys
        ),
    ]


@asynccontextmanager
async def _open_source(
    place: Place, target: Target, target_place: Place, settings: CopySettings
) -> AsyncIterator[Source]:
    if not isinstance(place, CachePlace):
        async with open_client(place, settings.from_credentials) as client:
            yield Source(client.name, client.store.path_infos, client.content)
        return
    async with open_workshop() as workshop:
        if isinstance(target, StoreTarget):
            content = target.content
        else:
            content = Content(MemoryBlobService(), MemoryDirectoryService())
        path_infos = _substituter(
            *(place, settings.from_credentials, workshop, content),
            keeping=isinstance(target, StoreTarget),
            sizes=SizeRule(_sizes(target_place, settings)),
        )
        yield Source(str(place), path_infos, content)


def _sizes(target: Place, settings: CopySettings) -> str:
    if isinstance(target, ComposePlace):
        return target.config.daemon.directory_sizes
    return settings.directory_sizes


def _substituter(
    place: CachePlace,
    credentials: Credentials,
    workshop: Workshop,
    content: Content,
    *,
    keeping: bool,
    sizes: SizeRule = SizeRule.DOCUMENTED,
) -> PathInfoService:
    upstream = open_upstream(_settings(place, credentials), workshop.pools)
    workshop.closing.push_async_callback(upstream.aclose)
    remembered = RememberedAnswers(MemoryKeyValue())
    workshop.closing.push_async_callback(remembered.aclose)
    service = NixPathInfoService(
        upstream=upstream,
        content=content,
        fills=workshop.fills(keeping=keeping, sizes=sizes),
        remembered=remembered,
        key=b"",
        # Whom to believe is for the copy to say, whatever it copies from.
        keys=None,
        retries=_RETRIES,
    )
    workshop.closing.push_async_callback(service.aclose)
    return RetryPathInfoService(service, _RETRY)


@asynccontextmanager
async def _open_target(place: Place, settings: CopySettings) -> AsyncIterator[Target]:
    if not isinstance(place, CachePlace):
        async with open_client(place, settings.to_credentials) as client:
            yield StoreTarget(
                *(client.name, client.store.path_infos, client.content, client.pools),
                trust=settings.trust,
                nars=client.nars,
            )
        return
    async with open_workshop() as workshop:
        upstream = _settings(place, settings.to_credentials)
        cache: FolderCache | HttpCache
        if urlsplit(place.url).scheme.lower() == "file":
            cache = FolderCache(upstream, workshop.pools)
        else:
            cache = HttpCache(upstream, workshop.pools, workshop.folder)
        workshop.closing.push_async_callback(cache.aclose)
        await cache.prepare()
        yield CacheTarget(
            *(str(place), cache, workshop.pools, settings.compression), trust=settings.trust
        )


def _settings(place: CachePlace, credentials: Credentials) -> UpstreamSettings:
    return UpstreamSettings(
        url=place.url,
        name=urlsplit(place.url).hostname or "folder",
        timeout=_TIMEOUT,
        connect_timeout=_CONNECT,
        stall_timeout=_STALL,
        netrc_file=credentials.netrc_file,
        token_file=credentials.token_file,
        ca_file=credentials.ca_file,
    )
