"""The stores that commands work on: a daemon that they connect to, or a composition of their own.

async with open_client(default_place(None)) as client:
    await client.store.path_infos.describe(path_hash)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from tvixstore.castore import SizeRule
from tvixstore.cli.places import ComposePlace, DaemonPlace, daemon_url
from tvixstore.errors import ConfigError, StateInUse, Unavailable

if TYPE_CHECKING:
    from tvixstore.compose import Config
    from tvixstore.compose.composition import Composition
    from tvixstore.library import Store
    from tvixstore.metrics import Metrics
    from tvixstore.nar import NarIdentities
    from tvixstore.pathinfo.nix import Fills
    from tvixstore.pools import Pools
    from tvixstore.rpc.client import Peer
    from tvixstore.tree import Content


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files that say who we are, and whom else we believe to be who he is."""

    token_file: Path | None = None
    netrc_file: Path | None = None
    ca_file: Path | None = None


NO_CREDENTIALS: Final = Credentials()

_REMEDY: Final = (
    "is a daemon running there? `tvix-store daemon` starts one; most commands work without it, too,"
    " with --compose FILE"
)


@dataclass(frozen=True, slots=True)
class Client:
    """A store at hand; `peer` if it is a daemon's, `composition` if it runs in this process."""

    name: str
    store: Store
    content: Content
    pools: Pools
    peer: Peer | None = None
    composition: Composition | None = None

    @property
    def nars(self) -> NarIdentities | None:
        """What NARs of the content are known by; a daemon knows that by itself."""
        return None if self.composition is None else self.composition.nars


@asynccontextmanager
async def open_client(
    place: DaemonPlace | ComposePlace, credentials: Credentials = NO_CREDENTIALS
) -> AsyncIterator[Client]:
    """The store at `place`. Asks a daemon nothing yet. Raises `ConfigError`."""
    opening = (
        _open_composition(place.config)
        if isinstance(place, ComposePlace)
        else _open_daemon(place, credentials)
    )
    async with opening as client:
        yield client


@asynccontextmanager
async def _open_composition(config: Config) -> AsyncIterator[Client]:
    from tvixstore.compose.composition import Composition
    from tvixstore.library import Store

    try:
        composition = await Composition.open(config, embedded=True)
    except StateInUse as error:
        raise StateInUse(
            f"{error}; or ask the daemon that has it, by its address{_at(config)}"
        ) from error
    async with composition:
        content = composition.content
        store = Store(
            *(content.blobs, content.directories, composition.path_infos),
            content=content,
            pools=composition.pools,
            sizes=SizeRule(config.daemon.directory_sizes),
        )
        yield Client(config.name, store, content, composition.pools, composition=composition)


def _at(config: Config) -> str:
    try:
        return f" {daemon_url(config)}"
    except ConfigError:
        return ""


@asynccontextmanager
async def _open_daemon(place: DaemonPlace, credentials: Credentials) -> AsyncIterator[Client]:
    from tvixstore.library import Store
    from tvixstore.rpc.client import GrpcBlobService, GrpcDirectoryService, GrpcPathInfoService
    from tvixstore.tree import Content

    async with open_workshop() as workshop:
        peer = _peer(place, credentials, workshop.pools)
        workshop.closing.push_async_callback(peer.aclose)
        content = Content(GrpcBlobService(peer), GrpcDirectoryService(peer))
        # What is read from it is not to be ingested into it.
        fills = workshop.fills(keeping=False)
        path_infos = GrpcPathInfoService(peer, content, fills)
        store = Store(
            *(content.blobs, content.directories, path_infos),
            content=content,
            pools=workshop.pools,
        )
        try:
            yield Client(str(place), store, content, workshop.pools, peer=peer)
        except Unavailable as error:
            if not peer.is_lost:
                raise
            raise Unavailable(f"{error}: {_REMEDY}") from error


def _peer(place: DaemonPlace, credentials: Credentials, pools: Pools) -> Peer:
    from tvixstore.rpc.client import Peer

    return Peer.at(
        place.url,
        pools=pools,
        token_file=credentials.token_file,
        ca_file=credentials.ca_file,
    )


@dataclass(frozen=True, slots=True)
class Workshop:
    """What services need that no composition provides for."""

    pools: Pools
    metrics: Metrics
    folder: Path
    closing: AsyncExitStack

    def fills(self, *, keeping: bool, **settings: Any) -> Fills:
        """A table of fills; one that is not `keeping` stores nothing of what it brings."""
        from tvixstore.pathinfo.nix import Fills

        fills = Fills(
            self.folder,
            self.pools,
            self.metrics,
            admission=None if keeping else _KeepsNothing(),
            **settings,
        )
        self.closing.push_async_callback(fills.aclose)
        return fills


@asynccontextmanager
async def open_workshop() -> AsyncIterator[Workshop]:
    """Closes, from the last to the first, what was pushed to `closing`."""
    from tvixstore.metrics import Metrics
    from tvixstore.pools import Pools

    async with AsyncExitStack() as closing:
        folder = closing.enter_context(TemporaryDirectory(prefix="tvixstore-"))
        pools = Pools()
        closing.callback(pools.close)
        yield Workshop(pools, Metrics(), Path(folder), closing)


class _KeepsNothing:
    def admits(self, size: int) -> bool:
        return False

    def failed(self, size: int, reason: str) -> None:
        raise AssertionError("nothing is written, so nothing fails to be")
