"""Rules about whose word is taken, and who can read what is secret."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from tvixstore.compose.config import Config
from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.key_files import open_to_others
from tvixstore.compose.lint.places import nodes, substituters
from tvixstore.compose.lint.substituters import is_exposed
from tvixstore.compose.long import label_of
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.nodes import (
    GrpcNode,
    GrpcPathInfoNode,
    KeyfileSigningNode,
    NixNode,
    VerifyPathInfoNode,
)
from tvixstore.compose.values import is_loopback

_READABLE = "is plain http: its credentials can be read by anybody on the way"
_SIGNED_ALL_THE_SAME = (
    "nobody verifies what it says, and sign_with has it handed out with our signature: "
    "whoever trusts our key believes it too"
)


def plain_credentials(config: Config) -> Iterator[Mistake]:
    for label, substituter in substituters(config):
        has_some = urlsplit(substituter.url).username is not None
        if is_exposed(substituter.url) and (
            has_some or substituter.token_file or substituter.netrc_file
        ):
            yield Mistake(label, "url", _READABLE)
    for place in nodes(config):
        node = place.node
        if isinstance(node, GrpcNode) and node.token_file and is_exposed(node.url):
            yield place.says("url", "is plain http: its token can be read by anybody on the way")
        elif isinstance(node, NixNode) and is_exposed(node.base_url):
            has_some = urlsplit(node.base_url).username is not None
            if has_some or node.token_file or node.netrc_file:
                yield place.says("base_url", _READABLE)


def readable_key(config: Config) -> Iterator[Mistake]:
    """Secret keys that others can read, or that are not there."""
    sign_with = config.daemon.sign_with
    if sign_with is not None and (text := open_to_others(sign_with)) is not None:
        yield Mistake("[daemon]", "sign_with", text)
    for place in nodes(config):
        if isinstance(place.node, KeyfileSigningNode):
            text = open_to_others(place.node.keyfile)
            if text is not None:
                yield place.says("keyfile", text)


def believed(config: Config) -> Iterator[Mistake]:
    """Upstreams whose word is taken for it, on some way from the root."""
    if config.graph is None:
        return
    for name in sorted(_unverified(config.graph)):
        label, node = label_of("path_infos", name), config.graph.path_infos[name]
        if isinstance(node, NixNode) and node.public_keys is None:
            yield Mistake(
                label,
                "public_keys",
                "is missing: whoever runs this cache, or is on the way to it, decides what is in "
                "the paths that it has; write its keys, or put a verify with public_keys over it",
            )
        elif isinstance(node, GrpcPathInfoNode):
            host = urlsplit(node.url).hostname
            if host is not None and not is_loopback(host):
                yield Mistake(
                    label,
                    "url",
                    "is another machine, whose word is taken for what its paths contain: "
                    "put a verify over it",
                )


def signed_unverified(config: Config) -> Iterator[Mistake]:
    """Upstreams whose word we sign."""
    if config.daemon.sign_with is None:
        return
    if config.graph is not None:
        yield from _signed(config.graph)
    for label, substituter in substituters(config):
        if substituter.unsigned:
            yield Mistake(label, "unsigned", _SIGNED_ALL_THE_SAME)


def _unverified(graph: Graph) -> set[str]:
    """The nodes of path infos that the root comes to without passing a `verify`.

    Binary caches need one that has keys: their NARs are hashed anyhow, by the hash they give.
    """
    found: set[str] = set()
    seen: set[tuple[str, bool]] = set()
    ahead = [(ROOT, False)]
    while ahead:
        place = name, rendered = ahead.pop()
        node = graph.path_infos.get(name)
        if node is None or place in seen:
            continue
        seen.add(place)
        if isinstance(node, VerifyPathInfoNode):
            if node.public_keys:
                continue
            rendered = True
        if isinstance(node, NixNode) or not rendered:
            found.add(name)
        ahead += [(below, rendered) for _, below in node.neighbours()]
    return found


def _signed(graph: Graph) -> Iterator[Mistake]:
    """Upstreams that the served path infos come to without anybody who looks at signatures."""
    seen: set[str] = set()
    ahead = [graph.served]
    while ahead:
        name = ahead.pop(0)
        node = graph.path_infos.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if isinstance(node, VerifyPathInfoNode) and node.public_keys:
            continue
        if isinstance(node, NixNode) and node.public_keys is None:
            yield Mistake(label_of("path_infos", name), "public_keys", _SIGNED_ALL_THE_SAME)
        elif isinstance(node, GrpcPathInfoNode):
            yield Mistake(label_of("path_infos", name), "url", _SIGNED_ALL_THE_SAME)
        ahead += [below for _, below in node.neighbours()]
