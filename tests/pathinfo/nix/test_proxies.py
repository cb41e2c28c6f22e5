"""Which proxy a request goes through."""

from __future__ import annotations

import pytest

from tvixstore.errors import Unavailable
from tvixstore.pathinfo.nix.credentials import basic
from tvixstore.pathinfo.nix.proxies import Proxies
from tvixstore.pathinfo.nix.urls import Url


def chosen(environment: dict[str, str], url: str, configured: str | None = None) -> str | None:
    proxy = Proxies("cache", configured, environment).choose(Url.parse(url))
    return None if proxy is None else proxy.url.base


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "http://h/", None),
        ({"http_proxy": "http://p:1"}, "http://h/", "http://p:1"),
        ({"http_proxy": "http://p:1"}, "https://h/", None),
        ({"HTTPS_PROXY": "https://p:1"}, "https://h/", "https://p:1"),
        (
            {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"},
            "https://h/",
            "http://low:1",
        ),
        ({"HTTPS_PROXY": "p:3128"}, "https://h/", "http://p:3128"),
        ({"ALL_PROXY": "http://p:1"}, "https://h/", "http://p:1"),
        ({"HTTPS_PROXY": ""}, "https://h/", None),
    ],
)
def test_the_environment_says_by_scheme(
    environment: dict[str, str], url: str, expected: str | None
) -> None:
    assert chosen(environment, url) == expected


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("*", "http://h/", True),
        ("example.org", "http://example.org/", True),
        ("example.org", "http://cache.EXAMPLE.org./", True),
        (".example.org", "http://example.org/", True),
        ("*.example.org", "http://cache.example.org/", True),
        ("example.org", "http://badexample.org/", False),
        ("a, example.org b", "http://example.org/", True),
        ("example.org:8080", "http://example.org:8080/", True),
        ("example.org:8080", "http://example.org/", False),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.0/8", "http://10.example/", False),
        ("127.0.0.1", "http://127.0.0.1:99/", True),
        ("[::1]", "http://[::1]/", True),
        ("::1", "http://[::1]/", True),
        ("[::1]:81", "http://[::1]:80/", False),
        ("fd00::/8", "http://[fd00::5]/", True),
        ("", "http://h/", False),
        (" , ., ", "http://h/", False),
    ],
)
def test_exceptions_go_direct(no_proxy: str, url: str, direct: bool) -> None:
    environment = {"http_proxy": "http://p:1", "NO_PROXY": no_proxy}
    assert chosen(environment, url) == (None if direct else "http://p:1")


def test_a_configured_proxy_is_for_everything_and_an_empty_one_for_nothing() -> None:
    environment = {"http_proxy": "http://env:1", "no_proxy": "*"}
    assert chosen(environment, "http://h/", "https://own:2") == "https://own:2"
    assert chosen({"http_proxy": "http://env:1"}, "http://h/", "") is None


def test_a_login_becomes_a_header_and_stays_out_of_texts() -> None:
    proxy = Proxies("cache", "http://me:hunter%322@p:1").choose(Url.parse("http://h/"))
    assert proxy is not None
    assert proxy.authorization == basic("me", "hunter22")
    assert "hunter" not in repr(proxy)


@pytest.mark.parametrize("text", ["socks5://p:1", "http://u:hunter2@p:x", "http://"])
def test_a_proxy_that_cannot_be_used_is_unknown_and_its_source_named(text: str) -> None:
    with pytest.raises(Unavailable, match="cache: its https_proxy cannot be used") as failed:
        chosen({"HTTPS_PROXY": text}, "https://h/")
    assert "hunter2" not in str(failed.value)
