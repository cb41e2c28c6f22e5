"""Makers of the services that are made alike whatever they keep: blobs, Directories, path infos.

A row of a table says what a node's service is made of, and a maker makes it of that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from tvixstore.compose.nodes import Kind, MirrorNode, Node

if TYPE_CHECKING:
    from tvixstore.compose.build import Builder


class Closable(Protocol):
    def aclose(self) -> Awaitable[None]: ...


Service = TypeVar("Service")
Closing = TypeVar("Closing", bound=Closable)
Policy = TypeVar("Policy")

# The node that a maker gets is of the type that it stands for in its table.
Maker: TypeAlias = Callable[["Builder", str, Any], Service]
Makers: TypeAlias = Mapping[type[Node], Maker[Service]]
PolicyOf: TypeAlias = Callable[["Builder", Kind, str, Any], Policy]
Count: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Making(Generic[Service]):
    """Makes services of `kind`, which finds its neighbours by `find`; metrics call it `metric`."""

    kind: Kind
    metric: str
    find: Callable[[Builder], Callable[[str], Service]]

    def alone(self, service: Callable[[], Service]) -> Maker[Service]:
        return lambda builder, name, node: service()

    def around(self, service: Callable[[Service], Service]) -> Maker[Service]:
        """Of its inner one."""
        return lambda builder, name, node: service(self.find(builder)(node.inner))

    def around_by(
        self, service: Callable[[Service, Policy], Service], policy_of: PolicyOf[Policy]
    ) -> Maker[Service]:
        """Of its inner one, and of a policy."""

        def make(builder: Builder, name: str, node: Any) -> Service:
            inner = self.find(builder)(node.inner)
            return service(inner, policy_of(builder, self.kind, name, node))

        return make

    def among(
        self, service: Callable[[Sequence[Service], Sequence[str]], Service]
    ) -> Maker[Service]:
        """Of its members, and what they are called."""
        return lambda builder, name, node: service(self.members(builder, node), node.members)

    def among_by(
        self,
        service: Callable[[Sequence[Service], Sequence[str], Policy], Service],
        policy_of: PolicyOf[Policy],
    ) -> Maker[Service]:
        """Of its members, what they are called, and a policy."""

        def make(builder: Builder, name: str, node: Any) -> Service:
            members = self.members(builder, node)
            return service(members, node.members, policy_of(builder, self.kind, name, node))

        return make

    def mirror(
        self,
        service: Callable[[Sequence[Service], Sequence[str], int, bool, Count], Closing],
    ) -> Maker[Closing]:
        """Of its members, as many of which have to succeed as the node says."""

        def make(builder: Builder, name: str, node: MirrorNode) -> Closing:
            count = builder.metrics.repairs_of(self.metric, name)
            members = self.members(builder, node)
            made = service(members, node.members, node.enough(), node.repair, count)
            builder.closing_services.push_async_callback(made.aclose)
            return made

        return make

    def members(self, builder: Builder, node: Any) -> list[Service]:
        find = self.find(builder)
        return [find(member) for member in node.members]
