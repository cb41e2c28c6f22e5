"""Where a command finds a store: what `--from`, `--to` and `--compose` name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tvixstore.cli.find import find, load
from tvixstore.errors import ConfigError
from tvixstore.log import redact

if TYPE_CHECKING:
    from tvixstore.compose import Config

# What a daemon's address means to those who connect to it, if it is everybody's.
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


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
