"""Who gets which credentials; and that files of them may change, be missing, be wrong."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest

from tests.pathinfo.nix.reached import HASH, NARINFO, chain, reach
from tests.support.upstream_server import Reply, UpstreamServer
from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix.credentials import Credentials, basic
from tvixstore.pathinfo.nix.netrc_text import parse_netrc
from tvixstore.pathinfo.nix.urls import Url
from tvixstore.pools import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOME = "https://cache.example/sub/"
NETRC = """
# the office's
machine cache.example login office password "pa#ss word"
machine cdn.example
    login cdn
    password secret
macdef init
    nothing

default login anybody password anything
"""


@pytest.fixture
def files() -> Iterator[Pool]:
    pool = Pool("files", 1)
    yield pool
    pool.close()


@pytest.fixture
def netrc_file(tmp_path: Path) -> Path:
    file = tmp_path / "netrc"
    file.write_text(NETRC)
    return file


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("sesame\n")
    return file


def rewrite(file: Path, content: str) -> None:
    """By renaming, as careful people do it: neither its length nor its time need to differ."""
    fresh = file.with_suffix(".new")
    fresh.write_text(content)
    os.replace(fresh, file)


def test_basic_is_user_and_password_in_utf8() -> None:
    assert basic("us", "p\u00e4ss:w") == "Basic " + base64.b64encode(b"us:p\xc3\xa4ss:w").decode()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://cache.example/x", basic("office", "pa#ss word")),
        ("https://CACHE.example:443/x", basic("office", "pa#ss word")),
        # Another machine that netrc knows by name, because a narinfo may send us there.
        ("https://cdn.example/x", basic("cdn", "secret")),
        # Strangers do not get what is for `default`, and nothing leaves https.
        ("https://other.example/x", None),
        ("http://cdn.example/x", None),
        ("http://cache.example/x", None),
        # What stands in an URL is for that URL.
        ("https://me:mine@other.example/x", basic("me", "mine")),
    ],
)
async def test_netrc_is_by_machine(
    files: Pool, netrc_file: Path, url: str, expected: str | None
) -> None:
    credentials = Credentials("cache", Url.parse(HOME), files, netrc_file)
    assert await credentials.authorization(Url.parse(url)) == expected


async def test_the_default_of_netrc_is_for_the_cache_itself(files: Pool, netrc_file: Path) -> None:
    home = Url.parse("http://unlisted.example")
    credentials = Credentials("cache", home, files, netrc_file)
    assert await credentials.authorization(home) == basic("anybody", "anything")
    assert await credentials.authorization(Url.parse("http://other.example")) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://cache.example/elsewhere", "Bearer sesame"),
        ("https://cache.example:8443/x", None),
        ("http://cache.example/x", None),
        ("https://cache.example.evil.example/x", None),
    ],
)
async def test_a_token_is_for_the_origin_of_the_cache(
    files: Pool, token_file: Path, url: str, expected: str | None
) -> None:
    credentials = Credentials("cache", Url.parse(HOME), files, token_file=token_file)
    assert await credentials.authorization(Url.parse(url)) == expected


async def test_the_url_comes_before_the_token_and_the_token_before_netrc(
    files: Pool, netrc_file: Path, token_file: Path
) -> None:
    target = Url.parse("https://cache.example/x")
    both = Credentials("cache", Url.parse(HOME), files, netrc_file, token_file)
    assert await both.authorization(target) == "Bearer sesame"
    home = Url.parse("https://me:a%2Fb@cache.example/")
    all_three = Credentials("cache", home, files, netrc_file, token_file)
    assert await all_three.authorization(target) == basic("me", "a/b")
    assert await all_three.authorization(home.join("nar/x")) == basic("me", "a/b")
    assert await all_three.authorization(Url.parse("https://other.example/x")) is None


async def test_a_user_without_a_password_is_one(files: Pool) -> None:
    home = Url.parse("http://token@cache.example/")
    assert await Credentials("cache", home, files).authorization(home) == basic("token", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("machine h login a password b", ("a", "b")),
        ("machine H password b login a", ("a", "b")),
        ("machine\th\n\n\tlogin\n a # who\n password #b", ("a", "#b")),
        ('machine h login "a \\" a" password "b"c', ('a " a', '"b"c')),
        ("machine h login a password b\nmachine h login x password y", ("a", "b")),
        ("macdef m\nmachine h login no\n\nmachine h login a account c password b", ("a", "b")),
        ("machine h password b", ("", "b")),
        ("machine other login x password y", None),
        ("", None),
    ],
)
def test_netrc_is_read_as_curl_does(text: str, expected: tuple[str, str] | None) -> None:
    entry = parse_netrc(text).machines.get("h")
    assert (entry and (entry.login, entry.password)) == expected


@pytest.mark.parametrize("text", ["login a", "machine", "machine h login", "machine h pass x"])
def test_what_is_not_netrc(text: str) -> None:
    with pytest.raises(ValueError):
        parse_netrc(text)


async def test_nothing_configured_is_nothing_sent(files: Pool) -> None:
    home = Url.parse(HOME)
    assert await Credentials("cache", home, files).authorization(home) is None


async def test_a_renewed_token_is_used_at_once(token_file: Path) -> None:
    async with UpstreamServer() as server:
        server.on(NARINFO, Reply(status=404))
        async with reach(server.url, token_file=token_file) as upstream:
            await upstream.narinfo(HASH)
            rewrite(token_file, "abracadabra")
            await upstream.narinfo(HASH)
            rewrite(token_file, "simsalabimm")
            await upstream.narinfo(HASH)
    assert [seen.headers["Authorization"] for seen in server.log] == [
        "Bearer sesame",
        "Bearer abracadabra",
        "Bearer simsalabimm",
    ]


async def test_a_changed_netrc_is_used_at_once(netrc_file: Path) -> None:
    async with UpstreamServer() as server:
        server.on(NARINFO, Reply(status=404))
        async with reach(server.url, netrc_file=netrc_file) as upstream:
            await upstream.narinfo(HASH)
            rewrite(netrc_file, "machine 127.0.0.1 login a password b")
            await upstream.narinfo(HASH)
    assert [seen.headers["Authorization"] for seen in server.log] == [
        basic("anybody", "anything"),
        basic("a", "b"),
    ]


@pytest.mark.parametrize("key", ["netrc_file", "token_file"])
async def test_a_missing_file_is_unknown_until_it_is_there(tmp_path: Path, key: str) -> None:
    file = tmp_path / "secrets"
    async with UpstreamServer() as server:
        server.on(NARINFO, Reply(status=404))
        async with reach(server.url, **{key: file}) as upstream:
            with pytest.raises(Unavailable, match=r"cache: .*secrets cannot be read: No such file"):
                await upstream.narinfo(HASH)
            assert server.log == []
            file.write_text("default login a password b" if key == "netrc_file" else "sesame")
            assert await upstream.narinfo(HASH) is None
            file.unlink()
            with pytest.raises(Unavailable, match="No such file"):
                await upstream.narinfo(HASH)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("netrc_file", b"machine cache.example login me passwort hunter2"),
        ("netrc_file", b"hunter2"),
        ("token_file", b"\n"),
        ("token_file", b"hunter2\nX-Injected: yes"),
        ("token_file", b"hunter2 hunter2"),
        ("token_file", b"hunter2\xff"),
    ],
)
async def test_a_file_that_is_wrong_is_unknown_and_not_quoted(
    tmp_path: Path, key: str, content: bytes
) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(content)
    async with UpstreamServer() as server, reach(server.url, **{key: file}) as upstream:
        with pytest.raises(Unavailable, match="secrets cannot be read") as failed:
            await upstream.narinfo(HASH)
    for error in chain(failed.value):
        assert "hunter2" not in str(error)
