"""The front doors of a daemon: what they serve, and how they change over to something else."""

from __future__ import annotations

from dataclasses import dataclass

from tvixstore.access import Access
from tvixstore.cli.guard import Guard
from tvixstore.compose import Daemon
from tvixstore.compose.composition import Composition
from tvixstore.http import HttpFront, HttpServer
from tvixstore.log import configure
from tvixstore.rpc.server import GrpcFront, GrpcServer


@dataclass(frozen=True, slots=True)
class Doors:
    """Both doors, and who gets in."""

    composition: Composition
    guard: Guard
    http: HttpServer
    grpc: GrpcServer

    @property
    def both(self) -> list[HttpServer | GrpcServer]:
        return [self.http, self.grpc]

    @property
    def where(self) -> str:
        """Where they listen, for people."""
        addresses = [address for server in self.both for address in server.addresses]
        return f"serving on {', '.join(addresses)}"

    def changed_over(self, daemon: Daemon) -> None:
        """Requests and calls from now on are of what the composition has by now, and as `daemon`
        says; connections, and what runs on them, are left alone."""
        configure(daemon.log_level, daemon.log_format)
        self.guard.change(daemon)
        composition, access = self.composition, self.guard.access
        self.http.change(http_front(composition, daemon, access), daemon.drain_timeout)
        self.grpc.change(grpc_front(composition, daemon, access), daemon.drain_timeout)


def http_front(composition: Composition, daemon: Daemon, access: Access) -> HttpFront:
    return HttpFront(
        composition.path_infos,
        composition.content,
        composition.metrics,
        priority=daemon.priority,
        nar_compression=daemon.nar_compression,
        pools=composition.pools,
        inbox=composition.inbox,
        extras=composition.extras,
        access_log=daemon.access_log,
        access=access,
        status=composition.upstream_statuses,
        ready=composition.trouble,
        uses=composition.uses,
        activity=composition.activity,
        explanations=composition.explanations,
    )


def grpc_front(composition: Composition, daemon: Daemon, access: Access) -> GrpcFront:
    return GrpcFront(
        composition.path_infos,
        composition.content,
        composition.nars,
        composition.metrics,
        composition.pools,
        access=access,
        upkeep=composition.upkeep,
        forget_absences=composition.forget_absences,
        access_log=daemon.access_log,
        uses=composition.uses,
        activity=composition.activity,
        explanations=composition.explanations,
    )
