"""What makes a path-info service of each type of node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tvixstore.compose.graph import ROOT
from tvixstore.compose.key_files import load_key_file
from tvixstore.compose.long import label_of
from tvixstore.compose.make_grpc import grpc_path_infos
from tvixstore.compose.make_nix import nix_path_infos
from tvixstore.compose.make_policies import (
    absences_of,
    breaker_of,
    chaos_of,
    hedging_of,
    limit_of,
    placement_of,
    retry_of,
    shown,
    timeout_of,
)
from tvixstore.compose.making import Makers, Making
from tvixstore.compose.nodes import (
    BreakerNode,
    CacheNode,
    ChaosNode,
    CountersigningNode,
    FallbackNode,
    GrpcPathInfoNode,
    KeyfileSigningNode,
    LimitNode,
    LocalPathInfoNode,
    LruNode,
    MemoryPathInfoNode,
    MirrorNode,
    NamesNode,
    NegativeNode,
    NixNode,
    NothingNode,
    OptionalNode,
    RaceNode,
    ReadOnlyNode,
    RetryNode,
    ShardNode,
    SignatureRequiredNode,
    TimeoutNode,
    VerifyPathInfoNode,
)
from tvixstore.nix import KeyRing
from tvixstore.pathinfo import LocalPathInfoService, MemoryPathInfoService, PathInfoService
from tvixstore.pathinfo.breaker import BreakerPathInfoService
from tvixstore.pathinfo.cached import CachedPathInfoService
from tvixstore.pathinfo.chaos import ChaosPathInfoService
from tvixstore.pathinfo.countersigning import CountersigningPathInfoService
from tvixstore.pathinfo.fallback import FallbackPathInfoService
from tvixstore.pathinfo.limit import LimitPathInfoService
from tvixstore.pathinfo.lru import LruPathInfoService
from tvixstore.pathinfo.mirror import MirrorPathInfoService
from tvixstore.pathinfo.names import NamesPathInfoService
from tvixstore.pathinfo.negative import NegativePathInfoService
from tvixstore.pathinfo.nothing import NoPathInfos
from tvixstore.pathinfo.optional import OptionalPathInfoService
from tvixstore.pathinfo.racing import RacingPathInfoService
from tvixstore.pathinfo.readonly import ReadOnlyPathInfoService
from tvixstore.pathinfo.required import SignatureRequiredPathInfoService
from tvixstore.pathinfo.retry import RetryPathInfoService
from tvixstore.pathinfo.shard import ShardPathInfoService
from tvixstore.pathinfo.signing import Signer, SigningPathInfoService
from tvixstore.pathinfo.timeout import TimeoutPathInfoService
from tvixstore.pathinfo.verify import VerifyPathInfoService
from tvixstore.policy.carrying import Carrying

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


def _memory(builder: Builder, name: str, node: MemoryPathInfoNode) -> PathInfoService:
    service = MemoryPathInfoService(builder.content(node.blob_service, node.directory_service))
    _trusting(builder, service)
    return service


def _trusting(builder: Builder, service: MemoryPathInfoService | LocalPathInfoService) -> None:
    """Has `service` trust the keys that count, whichever these are: it need not be another one for
    the keys of one more substituter."""

    def trust(builder: Builder) -> None:
        service.keys = builder.trusted_keys()

    builder.live(trust)


def _local(builder: Builder, name: str, node: LocalPathInfoNode) -> PathInfoService:
    store = builder.stores.at(node.path, node)

    def make() -> PathInfoService:
        service = LocalPathInfoService(
            store.engine.table("pathinfos"),
            builder.content(node.blob_service, node.directory_service),
            access=store.access,
            references=store.references,
            locks=store.locks,
        )
        _trusting(builder, service)
        return service

    return builder.share(("path infos", node.path.resolve()), make)


def _cache(builder: Builder, name: str, node: CacheNode) -> PathInfoService:
    service = CachedPathInfoService(
        builder.path_infos(node.near),
        builder.path_infos(node.far),
        builder.metrics.node("pathinfo", name),
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _shown(builder: Builder, members: Sequence[str]) -> list[str]:
    """What members are called; a class of substituters by all who are in it."""

    def name_of(member: str) -> str:
        node = builder.graph.path_infos.get(member)
        # It was not written by anybody, so that its name says nothing.
        if shown(member) == ROOT and isinstance(node, RaceNode):
            return ", ".join(_shown(builder, node.members))
        return shown(member)

    return [name_of(member) for member in members]


def _race(builder: Builder, name: str, node: RaceNode) -> PathInfoService:
    members = _making.members(builder, node)
    hedging = hedging_of(builder, "path_infos", name, node, _shown(builder, node.members))
    return RacingPathInfoService(members, _shown(builder, node.members), hedging)


def _fallback(builder: Builder, name: str, node: FallbackNode) -> PathInfoService:
    members = _making.members(builder, node)
    names = _shown(builder, node.members)
    return FallbackPathInfoService(members, names, builder.daemon.lookup_timeout)


def _retry(builder: Builder, name: str, node: RetryNode) -> PathInfoService:
    inner = builder.path_infos(node.inner)
    if (health := builder.upstream_below(node.inner)) is not None:
        builder.live(lambda _: health.expect(node.attempts))
    # Somebody else may have it, and is waited for no longer than for one connection.
    return RetryPathInfoService(
        inner, replace(retry_of(builder, "path_infos", name, node), reconnects=False)
    )


def _breaker(builder: Builder, name: str, node: BreakerNode) -> PathInfoService:
    inner = builder.path_infos(node.inner)
    health = builder.upstream_below(node.inner)
    on_change = None if health is None else health.breaker_changed
    breaker = breaker_of(builder, "path_infos", name, node, on_change)
    builder.tell("breakers", name, breaker)
    carrying = Carrying(breaker)
    builder.tell("carrying", name, carrying)
    builder.closing_services.push_async_callback(carrying.aclose)
    return BreakerPathInfoService(inner, breaker, carrying)


def _optional(builder: Builder, name: str, node: OptionalNode) -> PathInfoService:
    inner = builder.path_infos(node.inner)
    # Only lowering makes these, over a breaker.
    return OptionalPathInfoService(
        inner, node.name, builder.breakers[node.inner], builder.carrying[node.inner]
    )


def _limit(builder: Builder, name: str, node: LimitNode) -> PathInfoService:
    downloads = isinstance(builder.graph.path_infos.get(node.inner), NixNode)
    return LimitPathInfoService(
        builder.path_infos(node.inner), limit_of(builder, "path_infos", name, node), downloads
    )


def _mirror(builder: Builder, name: str, node: MirrorNode) -> PathInfoService:
    service = MirrorPathInfoService(
        _making.members(builder, node),
        node.members,
        builder.daemon.lookup_timeout,
        node.enough(),
        node.repair,
        builder.metrics.repairs_of("pathinfo", name),
    )
    builder.closing_services.push_async_callback(service.aclose)
    return service


def _names(builder: Builder, name: str, node: NamesNode) -> PathInfoService:
    return NamesPathInfoService(builder.path_infos(node.inner), node.only, node.but)


def _verify(builder: Builder, name: str, node: VerifyPathInfoNode) -> PathInfoService:
    return VerifyPathInfoService(
        builder.path_infos(node.inner),
        builder.nars(node.blob_service, node.directory_service),
        KeyRing(node.public_keys) if node.public_keys else None,
    )


def _lru(builder: Builder, name: str, node: LruNode) -> PathInfoService:
    return LruPathInfoService(node.capacity)


def _keyfile_signing(builder: Builder, name: str, node: KeyfileSigningNode) -> PathInfoService:
    key = load_key_file(node.keyfile, f"{builder.file}: {label_of('path_infos', name)}: keyfile: ")
    return SigningPathInfoService(builder.path_infos(node.inner), Signer(key))


def _countersigning(builder: Builder, name: str, node: CountersigningNode) -> PathInfoService:
    key = load_key_file(node.keyfile, f"{builder.file}: [daemon]: sign_with: ")
    inner = builder.path_infos(node.inner)
    return CountersigningPathInfoService(inner, Signer(key), builder.trusted_keys())


def _signature_required(
    builder: Builder, name: str, node: SignatureRequiredNode
) -> PathInfoService:
    inner = builder.path_infos(node.inner)
    return SignatureRequiredPathInfoService(inner, KeyRing(node.public_keys))


_making: Making[PathInfoService] = Making(
    "path_infos", "pathinfo", lambda builder: builder.path_infos
)

# One row a node type.
PATH_INFO_MAKERS: Makers[PathInfoService] = {
    MemoryPathInfoNode: _memory,
    LocalPathInfoNode: _local,
    GrpcPathInfoNode: grpc_path_infos,
    NixNode: nix_path_infos,
    CacheNode: _cache,
    RaceNode: _race,
    FallbackNode: _fallback,
    VerifyPathInfoNode: _verify,
    ReadOnlyNode: _making.around(ReadOnlyPathInfoService),
    LruNode: _lru,
    TimeoutNode: _making.around_by(TimeoutPathInfoService, timeout_of),
    RetryNode: _retry,
    BreakerNode: _breaker,
    OptionalNode: _optional,
    NegativeNode: _making.around_by(NegativePathInfoService, absences_of),
    KeyfileSigningNode: _keyfile_signing,
    CountersigningNode: _countersigning,
    SignatureRequiredNode: _signature_required,
    LimitNode: _limit,
    MirrorNode: _mirror,
    ShardNode: _making.among_by(ShardPathInfoService, placement_of),
    ChaosNode: _making.around_by(ChaosPathInfoService, chaos_of),
    NamesNode: _names,
    NothingNode: _making.alone(NoPathInfos),
}
