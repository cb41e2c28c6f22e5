"""Compose files that are legal, and probably not what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from tvixstore.compose.config import Config
from tvixstore.compose.lint_graph import lint_graph
from tvixstore.compose.lint_signing import lint_signing
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.model import Daemon, Substituter
from tvixstore.compose.values import format_duration, is_loopback


def lint(config: Config) -> list[Mistake]:
    """What to warn of. Nothing of it keeps a daemon from starting."""
    below = _lint_substituters(config) if config.graph is None else lint_graph(config.graph)
    return [*_lint_daemon(config.daemon), *lint_signing(config), *below]


def _lint_daemon(daemon: Daemon) -> Iterator[Mistake]:
    if "write" in daemon.rights_of_strangers() and not daemon.is_local():
        yield Mistake("[daemon]", "writes", "is true: whoever can connect can put what he likes")
    if daemon.tokens_file is not None:
        yield from _lint_tokens(daemon)
    for key in ("tls_cert", "tls_key", "client_ca", "tokens_file"):
        path = getattr(daemon, key)
        if path is not None and not path.is_file():
            yield Mistake("[daemon]", key, f"{path} is not a file on this machine")
    if daemon.tls_cert is not None and not any(
        address.kind == "tcp" for address in (daemon.http, daemon.grpc)
    ):
        yield Mistake("[daemon]", "tls_cert", "is of no use: unix sockets go without TLS")
    if daemon.client_ca is not None and daemon.grpc.kind != "tcp":
        yield Mistake("[daemon]", "client_ca", "is of no use: gRPC is not served over TCP")


def _lint_tokens(daemon: Daemon) -> Iterator[Mistake]:
    if daemon.tls_cert is None and not daemon.is_local():
        yield Mistake(
            "[daemon]",
            "tokens_file",
            "without tls_cert: tokens can be read by anybody on the way, unless a proxy of yours "
            "in front of this brings TLS",
        )
    if daemon.writes is False and daemon.anonymous_read:
        yield Mistake(
            "[daemon]",
            "tokens_file",
            "is hardly of use: everybody may read, and with writes = false nobody may put",
        )


def _lint_substituters(config: Config) -> Iterator[Mistake]:
    enabled = [substituter for substituter in config.substituters if substituter.enabled]
    if config.substituters and not enabled:
        yield Mistake("[[substituters]]", "enabled", "is false for all: only the store is asked")
    if enabled and all(substituter.optional for substituter in enabled):
        yield Mistake(
            "[[substituters]]",
            "optional",
            "is true for all: while all are down, lookups fail",
        )
    for number, substituter in enumerate(config.substituters, 1):
        label = f"[[substituters]] #{number} ({substituter.name})"
        if substituter.enabled:
            for key, text in _lint_substituter(config, substituter):
                yield Mistake(label, key, text)


def _lint_substituter(config: Config, substituter: Substituter) -> Iterator[tuple[str, str]]:
    parts = urlsplit(substituter.url)
    plain = parts.scheme in ("http", "grpc+http")
    exposed = plain and not is_loopback(parts.hostname or "")
    if substituter.unsigned:
        yield "unsigned", "whoever runs this cache decides what is in the paths it has"
        if exposed:
            yield "url", "is plain http and unsigned: anybody on the way can replace what it has"
    if exposed and (parts.username is not None or substituter.token_file or substituter.netrc_file):
        yield "url", "is plain http: its credentials can be read by anybody on the way"
    for key in ("netrc_file", "token_file", "ca_file"):
        path = getattr(substituter, key)
        if path is not None and not path.is_file():
            yield key, f"{path} is not a file on this machine"
    if substituter.timeout >= config.daemon.lookup_timeout and substituter.retries > 0:
        attempt = format_duration(substituter.timeout)
        lookup = format_duration(config.daemon.lookup_timeout)
        yield "timeout", f"{attempt} leaves a lookup_timeout of {lookup} no second attempt"
