"""Rules about `[daemon]`, and about files that are named anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from tvixstore.compose.config import Config
from tvixstore.compose.graph import KINDS
from tvixstore.compose.lint.places import Place, nodes, substituters, takes_writes
from tvixstore.compose.lower import lower
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.model import Daemon
from tvixstore.compose.nodes import GrpcNode, LocalNode, NixNode, ObjectStoreNode
from tvixstore.compose.values import Address, is_loopback

_DAEMON = "[daemon]"
_FILES = ("netrc_file", "token_file", "ca_file", "client_cert", "client_key")


def open_writes(config: Config) -> Iterator[Mistake]:
    daemon = config.daemon
    if "write" in daemon.rights_of_strangers() and not daemon.is_local():
        yield Mistake(_DAEMON, "writes", "is true: whoever can connect can put what he likes")


def refused_writes(config: Config) -> Iterator[Mistake]:
    """`writes = true` over roots that take none."""
    if config.daemon.writes is not True or config.graph is None:
        return
    for kind in KINDS:
        name = config.graph.top(kind)
        node = config.graph.of(kind).get(name)
        if node is not None and not takes_writes(place := Place(config.graph, kind, name, node)):
            yield place.says("", "takes no writes, and writes = true: whatever is put is refused")


def plain_tokens(config: Config) -> Iterator[Mistake]:
    daemon = config.daemon
    if daemon.tokens_file is not None and daemon.tls_cert is None and not daemon.is_local():
        yield Mistake(
            _DAEMON,
            "tokens_file",
            "without tls_cert: tokens can be read by anybody on the way, unless a proxy of yours "
            "in front of this brings TLS",
        )


def needless_tokens(config: Config) -> Iterator[Mistake]:
    daemon = config.daemon
    if daemon.tokens_file is not None and daemon.writes is False and daemon.anonymous_read:
        yield Mistake(
            _DAEMON,
            "tokens_file",
            "is hardly of use: everybody may read, and with writes = false nobody may put",
        )


def missing_file(config: Config) -> Iterator[Mistake]:
    places: list[tuple[str, object, tuple[str, ...]]] = [
        (_DAEMON, config.daemon, ("tls_cert", "tls_key", "client_ca", "tokens_file"))
    ]
    places += [(label, substituter, _FILES) for label, substituter in substituters(config)]
    for label, owner, keys in places:
        for key in keys:
            path = getattr(owner, key, None)
            if path is not None and not path.is_file():
                yield Mistake(label, key, f"{path} is not a file on this machine")
    for place in nodes(config):
        for key in _FILES:
            path = getattr(place.node, key, None)
            if path is not None and not path.is_file():
                yield place.says(key, f"{path} is not a file on this machine")


def needless_certificate(config: Config) -> Iterator[Mistake]:
    daemon = config.daemon
    over_tcp = [address.kind == "tcp" for address in (daemon.http, daemon.grpc)]
    if daemon.tls_cert is not None and not any(over_tcp):
        yield Mistake(_DAEMON, "tls_cert", "is of no use: unix sockets go without TLS")
    if daemon.client_ca is not None and not over_tcp[1]:
        yield Mistake(_DAEMON, "client_ca", "is of no use: gRPC is not served over TCP")
    for place in nodes(config):
        if isinstance(place.node, GrpcNode) and urlsplit(place.node.url).scheme != "grpc+https":
            for key in ("ca_file", "client_cert", "client_key"):
                if getattr(place.node, key) is not None:
                    yield place.says(key, "is of no use: the url is not grpc+https://…")


def needless_hedge(config: Config) -> Iterator[Mistake]:
    """A `hedge` in `[daemon]` where nothing races by it."""
    if not config.daemon.hedge:
        return
    if config.graph is not None:
        yield Mistake(
            _DAEMON, "hedge", "is of no use in the long form: write it into each race node"
        )
        return
    classes = Counter(substituter.priority for _, substituter in substituters(config))
    if max(classes.values(), default=0) < 2:
        yield Mistake(_DAEMON, "hedge", "is of no use: no two substituters have the same priority")


def own_address(config: Config) -> Iterator[Mistake]:
    """An upstream that is this very daemon: it asks itself, and waits for itself."""
    text = "is where this daemon listens itself: it would ask itself for what it does not have"
    for label, substituter in substituters(config):
        if _is_ours(config.daemon, substituter.url):
            yield Mistake(label, "url", text)
    for place in nodes(config):
        if isinstance(place.node, GrpcNode) and _is_ours(config.daemon, place.node.url):
            yield place.says("url", text)
        elif isinstance(place.node, NixNode) and _is_ours(config.daemon, place.node.base_url):
            yield place.says("base_url", text)


def offline_with_nothing(config: Config) -> Iterator[Mistake]:
    """`offline`, and nothing that outlives the process is left to be asked."""
    if not config.daemon.offline or config.graph is None:
        return
    graph = lower(config)
    reached = graph.reachable()
    if not any(
        isinstance(node, LocalNode | ObjectStoreNode)
        for kind, name, node in graph.nodes()
        if kind == "path_infos" and (kind, name) in reached
    ):
        yield Mistake(
            _DAEMON, "offline", "is true, and no local store is left: there is nothing to answer by"
        )


def _is_ours(daemon: Daemon, url: str) -> bool:
    parts = urlsplit(url)
    address = daemon.grpc if parts.scheme.startswith("grpc+") else daemon.http
    if address.kind == "unix":
        return parts.scheme == "grpc+unix" and unquote(parts.path) == address.path
    if address.kind != "tcp" or parts.hostname is None or not address.port:
        return False
    port = parts.port or (443 if parts.scheme.endswith("https") else 80)
    return port == address.port and _reaches(parts.hostname, address)


def _reaches(host: str, address: Address) -> bool:
    """Whether a name in a URL is that of a listener. Loopback addresses are several."""
    if host == address.host:
        return True
    if "localhost" in (host, address.host):
        return is_loopback(host) and is_loopback(address.host) or address.host in ("::", "0.0.0.0")
    return address.host in ("::", "0.0.0.0") and is_loopback(host)
