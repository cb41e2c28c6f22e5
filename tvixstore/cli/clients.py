"""What commands work on: a daemon that they connect to, or a composition that they open themselves.

    async with open_client(default_place(None)) as client:
        await client.store.path_infos.describe(path_hash)

A command runs in `run`, which ends the process with the exit code that an error has.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from tvixstore.cli.app import FAILED, INTERRUPTED, PROGRAM
from tvixstore.cli.find import find, load
from tvixstore.errors import ConfigError, CorruptData, StateInUse, StoreError, Unavailable
from tvixstore.log import redact

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

ABSENT: Final = 3
UNKNOWN: Final = 4
CORRUPT: Final = 5

# What a daemon's address means to those who connect to it, if it is everybody's.
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files that say who we are, and whom else we believe to be who he is."""

    token_file: Path | None = None
    netrc_file: Path | None = None
    ca_file: Path | None = None


NO_CREDENTIALS: Final = Credentials()


@dataclass(frozen=True, slots=True)
class DaemonPlace:
    """A daemon that answers gRPC: ours, tvix's or snix's."""

    url: str

    def __str__(self) -> str:
        return redact(self.url)


@dataclass(frozen=True, slots=True)
class ComposePlace:
    """A composition that the command opens itself."""

    config: Config

    def __str__(self) -> str:
        return self.config.name


@dataclass(frozen=True, slots=True)
class CachePlace:
    """A binary cache; `public_keys` are those that its URL names."""

    url: str
    public_keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return redact(self.url)


Place = DaemonPlace | ComposePlace | CachePlace


def parse_place(text: str) -> Place:
    """What `--from` and `--to` name. Raises `ConfigError`, saying what would be right."""
    from tvixstore.compose.urls import table_of_url
    from tvixstore.rpc.client.address import Target

    scheme, separator, _ = text.partition("://")
    scheme = scheme.lower()
    if not separator:
        return ComposePlace(load(Path(text)))
    if scheme.startswith("grpc+"):
        Target.parse(text)
        return DaemonPlace(text)
    if scheme in ("http", "https", "file"):
        return CachePlace(text)
    if scheme in ("nix+http", "nix+https"):
        try:
            table: dict[str, Any] = table_of_url("path_infos", text)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return CachePlace(table["base_url"], tuple(table.get("public_keys", ())))
    raise ConfigError(
        f"{redact(text)!r} cannot be copied from or to: write grpc+http://HOST:PORT, "
        "grpc+https://…, grpc+unix:///PATH, http(s)://HOST/…, file:///FOLDER or the path of a "
        "compose file, which can have every other service"
    )


def default_place(compose: Path | None) -> DaemonPlace | ComposePlace:
    """The composition in `compose`; without one, the daemon of the file that is found."""
    if compose is not None:
        return ComposePlace(load(compose))
    return DaemonPlace(daemon_url(load(find(None))))


def daemon_url(config: Config) -> str:
    """Where the daemon that runs on `config` answers gRPC. Raises `ConfigError` if nowhere."""
    address = config.daemon.grpc
    if address.kind == "unix":
        return f"grpc+unix://{address.path}"
    if address.kind == "off" or address.port == 0:
        raise ConfigError(
            f'{config.name}: [daemon]: grpc = "{address}" is no address to connect to: name the '
            "daemon, or with --compose FILE work on the composition without one"
        )
    host = _ANY.get(address.host, address.host)
    scheme = "grpc+http" if config.daemon.tls_cert is None else "grpc+https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{address.port}"


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
        store = Store(content.blobs, content.directories, composition.path_infos)
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
        store = Store(content.blobs, content.directories, path_infos)
        yield Client(str(place), store, content, workshop.pools, peer=peer)


def _peer(place: DaemonPlace, credentials: Credentials, pools: Pools) -> Peer:
    from tvixstore.rpc.client import Peer

    if credentials.token_file is not None or credentials.ca_file is not None:
        raise ConfigError(f"{place}: a daemon is shown no token, and its authority is the system's")
    return Peer.at(place.url, pools=pools)


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


def exit_code(error: StoreError) -> int:
    """What a command ends with when `error` ended it."""
    from tvixstore.transfer import AbsentPath

    codes: dict[type[StoreError], int] = {
        AbsentPath: ABSENT,
        Unavailable: UNKNOWN,
        CorruptData: CORRUPT,
    }
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), FAILED)


def say(error: StoreError) -> None:
    """Tells of it on standard error, a line each."""
    for line in redact(str(error)).splitlines():
        typer.echo(f"{PROGRAM}: {line}", err=True)


def run(command: Callable[[], Coroutine[Any, Any, int]]) -> NoReturn:
    """Runs `command` in a loop of its own, and ends the process with the exit code it returns.

    SIGINT and SIGTERM cancel it, and the process ends with 130 when it has put its things away; the
    second one ends it at once.
    """
    from tvixstore.cli.daemon import leave, loop_factory
    from tvixstore.log import configure

    configure("error")
    gc.freeze()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_until_signalled(command))
    sys.stdout.flush()
    leave(code)


async def _until_signalled(command: Callable[[], Awaitable[int]]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(command())
    signals = (signal.SIGINT, signal.SIGTERM)

    def signalled() -> None:
        task.cancel()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, signalled)
    try:
        return await task
    except StoreError as error:
        say(error)
        return exit_code(error)
    except asyncio.CancelledError:
        typer.echo(f"{PROGRAM}: interrupted", err=True)
        return INTERRUPTED
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
