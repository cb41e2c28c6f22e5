"""Every route, by every method, with every kind of credentials; and how a refusal looks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.http.support import (
    ABSENT,
    DescribedPaths,
    FailingPaths,
    Store,
    client_of,
    connected,
    counted,
    front_of,
    serving,
)
from tests.support.credentials import CREDENTIALS, TOKENS
from tvixstore.access import Access, Right
from tvixstore.errors import Unavailable
from tvixstore.http import HttpFront, UpstreamStatus
from tvixstore.http.routes import ROUTES, Route, find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.http.support import Client, Reply

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH")
# What is free needs a reason: somebody who watches, and has no token.
FREE = {"healthz", "readyz"}
NIX = "curl/7.88.1 Nix/2.8.0"


def target_of(route: Route) -> str:
    """Some URL of it, of nothing that is there."""
    pattern = route.pattern.pattern.replace(r"\.", ".").replace("(?:tvix|snix)", "tvix")
    pattern = pattern.replace("[^/]*-[^/]*", f"{ABSENT}-{'0' * 52}")
    return re.sub(r"[()]", "", re.sub(r"\[\^/\.?\][*+]", ABSENT, pattern))


def is_denial(method: str, reply: Reply) -> bool:
    """Whether it is about who asks: other things are forbidden to everybody."""
    about_rights = method == "HEAD" or "the token lacks the right" in reply.text
    return reply.status == 401 or (reply.status == 403 and about_rights)


def guarded(anonymous_read: bool) -> HttpFront:
    anonymous: frozenset[Right] = frozenset({"read"} if anonymous_read else ())
    return front_of(FailingPaths(Unavailable("as told")), access=Access(anonymous, TOKENS))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_says_what_it_takes(route: Route) -> None:
    assert set(METHODS) >= set(route.methods) >= {"GET", "HEAD"}
    for name, method in route.methods.items():
        if name in ("GET", "HEAD"):
            assert (method.right is None) == (route.name in FREE)
        else:
            assert method.right in ("write", "admin"), "reading changes nothing"
    found = find(target_of(route))
    assert found is not None and found[0].name == route.name, "the table below would not meet it"


@pytest.mark.parametrize("anonymous_read", [True, False])
async def test_every_route_and_method_asks_for_its_right(anonymous_read: bool) -> None:
    """Whoever may read is told which routes and methods there are not."""
    async with serving(guarded(anonymous_read)) as server:
        for route in [*ROUTES, None]:
            target = "/nothing/here" if route is None else target_of(route)
            for method in METHODS:
                for name, (authorization, rights) in CREDENTIALS.items():
                    # What can be a stream without an end is to be a document.
                    headers = {"Accept": "application/json"}
                    if authorization is not None:
                        headers["Authorization"] = authorization
                    async with connected(server.addresses[0]) as client:
                        reply = await client.request(method, target, **headers)
                    where = f"{method} {target} with {name} credentials: {reply}"
                    unknown = name in ("wrong", "expired")
                    may = rights | ({"read"} if anonymous_read and not unknown else set())
                    right: Right | None = "read"
                    if route is not None:
                        right = route.methods.get(method, route.methods["GET"]).right
                    if right is None or right in may:
                        assert not is_denial(method, reply), where
                    elif not rights:
                        assert reply.status == 401, where
                        assert "Basic realm=" in reply.headers["www-authenticate"], where
                    else:
                        assert reply.status == 403, where
                        assert "www-authenticate" not in reply.headers, where


@pytest.fixture
async def shut() -> AsyncIterator[Client]:
    store = await Store.filled()
    front = front_of(store.path_infos, store.content, access=Access(frozenset(), TOKENS))
    async with client_of(front) as client:
        yield client


async def test_a_refusal_does_not_tell_what_is_there() -> None:
    store = await Store.filled()
    access = Access(frozenset(), TOKENS)
    async with client_of(front_of(store.path_infos, store.content, access=access)) as client:
        bodies = {
            (reply.status, reply.body)
            for target in (
                f"/{store.path.digits}.narinfo",
                f"/{ABSENT}.narinfo",
                "/not-a-hash.narinfo",
                store.path.by_hash,
                "/nar/nonsense",
                "/nothing",
                f"/{store.path.digits}.ls",
            )
            if (reply := await client.get(target)) is not None
        }
    ((status, body),) = bodies
    assert status == 401
    assert b"as the password of any user (for Nix: in its netrc-file)" in body


async def test_nobody_is_asked_for_whoever_may_not_know() -> None:
    front = front_of(FailingPaths(AssertionError("asked")), access=Access(frozenset(), TOKENS))
    async with client_of(front) as client:
        assert (await client.get(f"/{ABSENT}.narinfo")).status == 401
    assert counted(front, "requests_total", route="narinfo", status="401", answer="refused") == 1


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        (NIX, 511),
        ("curl/8.4.0 Nix/2.34.1", 511),
        ("curl/8.4.0 Nix/2.3.16", 511),
        ("curl/8.4.0 Nix/2.24pre20240910", 511),
        ("curl/8.4.0 Nix/1.11.16", 511),
        ("curl/8.4.0 Lix/2.91.0", 511),
        ("curl/8.14.0 Nix/2.35.0", 401),
        ("curl/8.14.0 Nix/2.100.0", 401),
        ("curl/8.14.0 Nix/3.0.0", 401),
        ("curl/8.14.0", 401),
        ("Phoenix/2.8", 401),
    ],
)
async def test_clients_that_take_a_401_for_absent_get_what_they_tell(
    shut: Client, agent: str, status: int
) -> None:
    for target in ("/nix-cache-info", f"/{ABSENT}.narinfo", "/nar/x"):
        assert (await shut.get(target, User_Agent=agent)).status == status


async def test_they_are_told_of_a_right_that_is_missing_as_well(shut: Client) -> None:
    headers = {"User_Agent": NIX, "Authorization": "Bearer w"}
    reply = await shut.get("/nix-cache-info", **headers)
    assert reply.status == 511
    assert "lacks the right `read`" in reply.text
    # Of an upload they say what any status says.
    assert (await shut.request("PUT", "/nix-cache-info", User_Agent=NIX)).status == 401


async def test_a_body_that_is_not_wanted_is_not_waited_for(shut: Client) -> None:
    shut.send("PUT", f"/{ABSENT}.narinfo", Content_Length="1000000", Expect="100-continue")
    reply = await shut.receive()
    assert reply.status == 401
    assert reply.headers["connection"] == "close"


async def test_only_readers_are_told_of_upstreams() -> None:
    upstreams = [UpstreamStatus("main", False, 1700000000.0, "no route to it")]
    front = front_of(
        DescribedPaths(None), status=lambda: upstreams, access=Access(frozenset(), TOKENS)
    )
    async with client_of(front) as client:
        stranger = await client.get("/readyz")
        assert stranger.status == 200
        assert '"substituters": []' in stranger.text
        assert "no route" not in stranger.text
        assert "no route" in (await client.get("/readyz", Authorization="Bearer r")).text


async def test_of_two_headers_no_one_is_let_in_by_the_second(shut: Client) -> None:
    shut.writer.write(
        b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer x\r\nAuthorization: Bearer r\r\n\r\n"
    )
    assert (await shut.receive()).status in (400, 401)


@pytest.mark.parametrize(("anonymous", "kept"), [(True, "public"), (False, "private")])
async def test_what_takes_credentials_is_in_no_cache_that_others_share(
    anonymous: bool, kept: str
) -> None:
    store = await Store.filled()
    access = Access(frozenset({"read"} if anonymous else ()), TOKENS)
    async with client_of(front_of(store.path_infos, store.content, access=access)) as client:
        for target in (store.path.by_hash, store.path.by_node):
            reply = await client.get(target, Authorization="Bearer r")
            assert reply.status == 200
            assert reply.headers["cache-control"] == f"{kept}, max-age=31536000, immutable"
