"""Graphs that are legal, and probably not what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias
from urllib.parse import urlsplit

from tvixstore.compose.graph import ROOT, Graph
from tvixstore.compose.long import label_of
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.nodes import (
    CacheNode,
    ChaosNode,
    FallbackNode,
    GrpcNode,
    GrpcPathInfoNode,
    Kind,
    LimitNode,
    LruNode,
    MirrorNode,
    NixNode,
    RaceNode,
    RetryNode,
    ShardNode,
    TimeoutNode,
    VerifyPathInfoNode,
)
from tvixstore.compose.values import format_duration, is_loopback

Warnings: TypeAlias = Iterator[Mistake]

PATH_INFOS: Kind = "path_infos"


def lint_graph(graph: Graph) -> list[Mistake]:
    """What to warn of in a graph that somebody wrote."""
    return [
        *_unreachable(graph),
        *_believed(graph),
        *_starved(graph),
        *_forgetful(graph),
        *_missing_files(graph),
        *_needless(graph),
        *_on_purpose(graph),
        *_held(graph),
        *_overall(graph),
    ]


def _unreachable(graph: Graph) -> Warnings:
    reachable = graph.reachable()
    for kind, name, _ in graph.nodes():
        if (kind, name) not in reachable:
            yield Mistake(label_of(kind, name), "", "nothing leads from a root to this node")


def _believed(graph: Graph) -> Warnings:
    """Upstreams whose word is taken for it, on some way from the root."""
    for name in sorted(_unverified(graph)):
        label, node = label_of("path_infos", name), graph.path_infos[name]
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


def _starved(graph: Graph) -> Warnings:
    """A `timeout` around a `retry` that leaves it no time for a second attempt."""
    for kind, name, node in graph.nodes():
        if not isinstance(node, TimeoutNode):
            continue
        inner = graph.of(kind).get(node.inner)
        if not isinstance(inner, RetryNode) or inner.attempts == 1:
            continue
        below = graph.of(kind).get(inner.inner)
        if isinstance(below, TimeoutNode | NixNode):
            attempt = below.attempt if isinstance(below, TimeoutNode) else below.timeout
            whole, key = (node.attempt, "attempt")
            if node.overall is not None:
                whole, key = node.overall, "overall"
            if whole <= attempt:
                yield Mistake(
                    label_of(kind, name),
                    key,
                    f"{format_duration(whole)} around a retry leaves its attempts of "
                    f"{format_duration(attempt)} no second one: put the timeout inside the retry",
                )


def _forgetful(graph: Graph) -> Warnings:
    """What is put at a root, and only reaches what forgets."""
    name, kind = ROOT, PATH_INFOS
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        node = graph.of(kind).get(name)
        if isinstance(node, CacheNode):
            near = graph.of(kind).get(node.near)
            if isinstance(near, LruNode):
                yield Mistake(
                    label_of(kind, name),
                    "near",
                    f'"{node.near}" forgets, and what is put goes nowhere else: '
                    "put a cache with a local node near around it",
                )
            name = node.near
        elif isinstance(node, RaceNode | FallbackNode | MirrorNode | ShardNode):
            name = node.members[0]
        elif node is not None and (neighbours := node.neighbours()):
            name = neighbours[0][1]


def _on_purpose(graph: Graph) -> Warnings:
    for kind, name, node in graph.nodes():
        if isinstance(node, ChaosNode):
            lies = node.absent_rate or any(step.startswith("absent") for step in node.script)
            yield Mistake(
                label_of(kind, name),
                "type",
                "chaos lets calls go wrong on purpose"
                + (", and denies what is there: clients remember that" if lies else "")
                + ": take it out after the drill",
            )


def _held(graph: Graph) -> Warnings:
    """A `limit` around something that asks others while it holds a permit."""
    for kind, name, node in graph.nodes():
        if isinstance(node, LimitNode):
            below = graph.of(kind).get(node.inner)
            # A third party's node says nothing of what is below it.
            if below is not None and below.references:
                yield Mistake(
                    label_of(kind, name),
                    "inner",
                    f'"{node.inner}" is no store itself, and waits for others while it holds a '
                    "permit: put the limit around each of them",
                )


def _overall(graph: Graph) -> Warnings:
    for kind, name, node in graph.nodes():
        if (
            isinstance(node, TimeoutNode)
            and node.overall is not None
            and not graph.repeats(kind, node.inner)
        ):
            yield Mistake(
                label_of(kind, name),
                "overall",
                "has no retry below it: there is one attempt, and the shorter time counts",
            )


def _missing_files(graph: Graph) -> Warnings:
    for kind, name, node in graph.nodes():
        for key in ("netrc_file", "token_file", "ca_file", "client_cert", "client_key"):
            path = getattr(node, key, None)
            if path is not None and not path.is_file():
                label = label_of(kind, name)
                yield Mistake(label, key, f"{path} is not a file on this machine")


def _needless(graph: Graph) -> Warnings:
    """Certificates where there is no TLS, and tokens that others can read."""
    for kind, name, node in graph.nodes():
        if not isinstance(node, GrpcNode):
            continue
        url, label = urlsplit(node.url), label_of(kind, name)
        if url.scheme == "grpc+http" and node.token_file and not is_loopback(url.hostname or ""):
            yield Mistake(
                label, "url", "is plain http: its token can be read by anybody on the way"
            )
        if url.scheme != "grpc+https":
            for key in ("ca_file", "client_cert", "client_key"):
                if getattr(node, key) is not None:
                    yield Mistake(label, key, "is of no use: the url is not grpc+https://…")
