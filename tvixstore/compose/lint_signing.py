"""Key files that others can read, and signatures under what nobody verified."""

from __future__ import annotations

from collections.abc import Iterator

from tvixstore.compose.config import Config
from tvixstore.compose.graph import Graph
from tvixstore.compose.key_files import open_to_others
from tvixstore.compose.long import label_of
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.nodes import (
    GrpcPathInfoNode,
    KeyfileSigningNode,
    NixNode,
    VerifyPathInfoNode,
)

_SIGNED_ALL_THE_SAME = (
    "nobody verifies what it says, and sign_with has it handed out with our signature: "
    "whoever trusts our key believes it too"
)


def lint_signing(config: Config) -> Iterator[Mistake]:
    """What to warn of where something signs."""
    sign_with = config.daemon.sign_with
    if sign_with is not None and (text := open_to_others(sign_with)) is not None:
        yield Mistake("[daemon]", "sign_with", text)
    if config.graph is not None:
        yield from _key_files(config.graph)
    if sign_with is None:
        return
    if config.graph is not None:
        yield from _unverified(config.graph)
        return
    for number, substituter in enumerate(config.substituters, 1):
        if substituter.enabled and substituter.unsigned:
            label = f"[[substituters]] #{number} ({substituter.name})"
            yield Mistake(label, "unsigned", _SIGNED_ALL_THE_SAME)


def _key_files(graph: Graph) -> Iterator[Mistake]:
    for name, node in graph.path_infos.items():
        if isinstance(node, KeyfileSigningNode):
            text = open_to_others(node.keyfile)
            if text is not None:
                yield Mistake(label_of("path_infos", name), "keyfile", text)


def _unverified(graph: Graph) -> Iterator[Mistake]:
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
