"""Another daemon: how it is asked, what names its services go by, and what its answers mean.

A peer's word is a value (OK), absent (NOT_FOUND), or unknown: whatever else it says, and whatever
keeps it from saying anything. A call that a lost connection cut off before anything came of it is
made once more, over a new one: everything here can be said twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from tvixstore.activity import Waiting
from tvixstore.errors import CorruptData, Unavailable
from tvixstore.log import Logger
from tvixstore.policy.deadline import remaining, within
from tvixstore.policy.outage import Outage
from tvixstore.policy.timeout import Hurried
from tvixstore.pools import Pools
from tvixstore.rpc.client.address import Target
from tvixstore.rpc.client.call import (
    Exchange,
    Replies,
    Sending,
    Timeout,
    Unimplemented,
    in_own_task,
    open_call,
)
from tvixstore.rpc.client.identity import Identity
from tvixstore.rpc.client.link import CONNECTIONS, Dial, Link, Links, dialer
from tvixstore.rpc.client.paced import Sent, Served
from tvixstore.rpc.client.refusals import LOST, refusals, why
from tvixstore.rpc.methods import SNIX, TVIX, Method

ProtocolName = Literal["auto", "tvix", "snix"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Result = TypeVar("Result")

# What a connection takes at most to come about, in seconds.
CONNECT_TIMEOUT: Final = 10.0

log = Logger("tvixstore.rpc.client.peer")


class Peer:
    """A daemon at the other end. Whoever opened it closes it, after all that uses it.

    `timeout` bounds short calls, and the wait for each next message of a long one, in seconds.
    """

    def __init__(
        self,
        name: str,
        dial: Dial,
        *,
        protocol: ProtocolName = "auto",
        timeout: float = 30.0,
        wait_connect: bool = False,
        connections: int = CONNECTIONS,
        pools: Pools | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        # Whether whoever builds it is to `connect` at once.
        self.wait_connect = wait_connect
        self._links = Links(dial, connections)
        self._pools = pools
        self._identity = identity or Identity(name)
        # Whether it refused our credentials when it was last heard of.
        self._refused = False
        # By service, the names to try: the one that was right the last time first.
        self._protocol = protocol
        self._packages: dict[str, list[str]] = {}
        # Services that have answered by the name which is now tried first.
        self._settled: set[str] = set()
        # Calls that the peer did not know, and over which connection it said so: after a new one
        # it may be another daemon.
        self._unimplemented: dict[str, object | None] = {}
        self._outage = Outage(log, "peer.unreachable", "peer.reachable")

    @classmethod
    def at(
        cls,
        url: str,
        *,
        protocol: ProtocolName = "auto",
        timeout: float = 30.0,
        pools: Pools | None = None,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
    ) -> Peer:
        """The peer at a service URL; connects when it is first asked. Raises `ConfigError`.

        `token_file` has the token that calls carry; `ca_file`, authorities that are trusted beside
        the system's. `client_cert` and `client_key` are for peers that let no others in.
        """
        target = Target.parse(url)
        identity = Identity(
            str(target),
            token_file=token_file,
            ca_file=ca_file,
            client_cert=client_cert,
            client_key=client_key,
            pools=pools,
        )
        return cls(
            str(target),
            dialer(target, pools, identity),
            protocol=protocol,
            timeout=timeout,
            wait_connect=target.wait_connect,
            pools=pools,
            identity=identity,
        )

    def __repr__(self) -> str:
        return f"grpc {self.name}"

    @property
    def is_lost(self) -> bool:
        """Whether it could not be reached when it was last asked."""
        return self._outage.failures > 0

    async def connect(self) -> None:
        """Connects now. Raises `Unavailable` if nobody answers."""
        with self.troubles():
            await self._connect(self._links.first())

    async def aclose(self) -> None:
        """Closes its connections; what is still under way breaks."""
        await self._links.aclose()

    async def ask(
        self, method: Method[Request, Reply], request: Request, *, patient: bool = False
    ) -> Reply | None:
        """The reply, or `None` for NOT_FOUND. A `patient` call takes as long as it takes."""

        async def call(exchange: Exchange) -> Reply:
            reply: Reply = await exchange.ask(request)
            return reply

        return await self._named(method, lambda path: self._call(method, path, call, patient))

    async def tell(
        self,
        method: Method[Request, Reply],
        requests: Sequence[Request],
        *,
        patient: bool = False,
    ) -> Reply:
        """The reply to several requests that are all there. A `patient` call is as for `ask`."""

        async def call(exchange: Exchange) -> Reply:
            reply: Reply = await exchange.tell(requests)
            return reply

        told = await self._named(method, lambda path: self._call(method, path, call, patient))
        if told is None:
            raise Unavailable(f"{self.name} misses something that {method.name} takes for granted")
        return told

    async def gather(
        self, method: Method[Request, Reply], request: Request, most: int
    ) -> list[Reply] | None:
        """All of a few replies, or `None` for NOT_FOUND.

        `most` bounds their bytes, or else their number; more than that is `CorruptData`.
        """

        async def call(exchange: Exchange) -> list[Reply]:
            return await exchange.gather(request, most)

        return await self._named(method, lambda path: self._call(method, path, call, False))

    async def serve(
        self, method: Method[Request, Reply], request: Request, ahead: int
    ) -> Served[Reply] | None:
        """The replies as they come, or `None` for NOT_FOUND; `ahead` of them are read at most."""

        async def begin(path: str) -> Served[Reply]:
            link = await self._links.take(within(self.timeout))

            async def attempt() -> Served[Reply]:
                exchange = await self._open(link, method, path)
                return await self._begin(link, Replies(exchange, request, ahead))

            try:
                return await self._again(link, attempt)
            except BaseException:
                await self._links.release(link)
                raise

        return await self._named(method, begin)

    async def settle(self, method: Method[Request, Any], request: Request) -> None:
        """Finds out, by some call, by which name the peer knows the service of `method`.

        What cannot be said twice needs that before: a stream that is put.
        """
        if method.service not in self._settled:
            await self.gather(method, request, 1)

    async def send(self, method: Method[Request, Reply]) -> Sent[Request, Reply]:
        """A stream of requests with one reply, of a service that is `settled`."""
        with self.troubles(method):
            link = await self._links.take(within(self.timeout))
            try:
                await self._connect(link)
                exchange = await self._open(link, method, method.path(self._names(method)[0]))
                return Sent(self, method, Sending(exchange), lambda: self._links.release(link))
            except BaseException:
                await self._links.release(link)
                raise

    @contextmanager
    def troubles(self, method: Method[Any, Any] | None = None) -> Iterator[None]:
        """Says in terms of stores what goes wrong with a call, and whose fault it is."""
        try:
            yield
        except GRPCError as error:
            if method is not None and error.status is Status.UNIMPLEMENTED:
                self._settled.discard(method.service)
            if error.status is Status.UNAUTHENTICATED:
                self._note_refusal(True, error.message)
            kind = refusals(method).get(error.status)
            message = f": {error.message}" if error.message else ""
            raise (kind or Unavailable)(f"{self.name}: {error.status.name}{message}") from error
        except Timeout:
            # Timers may go off a little early.
            if (left := remaining()) is not None and left < 0.001:
                raise Hurried(f"{self.name}: no answer before the caller's deadline") from None
            raise Unavailable(f"{self.name}: no answer within {self.timeout:g} s") from None
        except CorruptData as error:
            raise CorruptData(f"{self.name}: {error}") from error
        except LOST as error:
            self._outage.failed(error)
            raise Unavailable(f"{self.name} cannot be reached: {why(error)}") from error

    def _names(self, method: Method[Any, Any]) -> list[str]:
        if method.packages != (TVIX, SNIX):
            return list(method.packages)
        if self._protocol != "auto":
            return [self._protocol]
        return self._packages.setdefault(method.service, [TVIX, SNIX])

    async def _named(
        self, method: Method[Any, Any], call: Callable[[str], Awaitable[Result]]
    ) -> Result | None:
        """What `call` comes to by the first of the method's names that the peer knows."""
        with Waiting("lookup", method.name, self.name), self.troubles(method):
            for package in list(self._names(method)):
                path = method.path(package)
                if self._is_unknown(path):
                    continue
                try:
                    result = await call(path)
                except GRPCError as error:
                    if error.status is Status.UNIMPLEMENTED:
                        self._unimplemented[path] = self._links.first().connection
                        continue
                    if error.status is not Status.NOT_FOUND:
                        raise
                    result = None
                self._prefer(method, package)
                self._outage.over()
                self._note_refusal(False)
                return result
        raise Unimplemented(f"{self.name} knows no {method.service}/{method.name}")

    def _prefer(self, method: Method[Any, Any], package: str) -> None:
        self._settled.add(method.service)
        names = self._names(method)
        if names[0] != package:
            names.remove(package)
            names.insert(0, package)

    def _is_unknown(self, path: str) -> bool:
        said_by = self._unimplemented.get(path)
        return said_by is not None and said_by is self._links.first().connection

    async def _open(self, link: Link, method: Method[Any, Any], path: str) -> Exchange:
        authorization = await self._identity.authorization()
        return open_call(link.channel, method, path, self._pools, authorization)

    def _note_refusal(self, refused: bool, reason: str | None = None) -> None:
        """Says once, and loudly, that somebody has to do something."""
        if refused and not self._refused:
            log.error(
                "peer.credentials_refused",
                reason=f"{self.name}: {reason or 'no reason given'}; check the token_file",
            )
        elif self._refused and not refused:
            log.info("peer.credentials_accepted", peer=self.name)
        self._refused = refused

    async def _connect(self, link: Link) -> bool:
        return await link.connect(min(within(self.timeout), CONNECT_TIMEOUT))

    async def _call(
        self,
        method: Method[Any, Any],
        path: str,
        call: Callable[[Exchange], Coroutine[Any, Any, Result]],
        patient: bool,
    ) -> Result:
        async def attempt() -> Result:
            seconds = None if patient else within(self.timeout)
            return await in_own_task(call(await self._open(link, method, path)), seconds)

        if not patient:
            link = self._links.first()
            async with link.place(within(self.timeout)):
                return await self._again(link, attempt)
        link = await self._links.take(within(self.timeout))
        try:
            return await self._again(link, attempt)
        finally:
            await self._links.release(link)

    async def _again(self, link: Link, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Makes an attempt, and another if it met a connection that was about to be lost."""
        fresh = await self._connect(link)
        try:
            return await attempt()
        except LOST:
            if fresh or link.connected:
                raise
        await self._connect(link)
        return await attempt()

    async def _begin(self, link: Link, replies: Replies[Reply]) -> Served[Reply]:
        try:
            await replies.ready(within(self.timeout))
        except BaseException:
            await replies.aclose()
            raise
        return Served(self, replies, lambda: self._links.release(link))
