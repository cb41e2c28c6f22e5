"""URLs: taken apart as far as needed, and otherwise left alone."""

from __future__ import annotations

import pytest

from tvixstore.pathinfo.nix.urls import Url

BASE = "http://cache.example/a/b/"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("http://h", "http://h/"),
        ("HTTP://H.Example/P", "http://h.example/P"),
        ("http://h:80/", "http://h/"),
        ("https://h:443/", "https://h/"),
        ("https://h:80/", "https://h:80/"),
        ("http://h?q", "http://h/?q"),
        ("http://h/p#fragment", "http://h/p"),
        ("http://u:p@h/p", "http://h/p"),
        ("http://u:p@q@h/p", "http://h/p"),
        ("http://[2001:DB8::0:1]:81/p", "http://[2001:db8::1]:81/p"),
        ("http://[fe80::1%eth0.1]:81/p", "http://[fe80::1%eth0.1]:81/p"),
        ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/"),
        (
            "http://h/%41%zz/+&=;@:'\"<>\\^`{|}?%2F=%2f",
            "http://h/%41%zz/+&=;@:'\"<>\\^`{|}?%2F=%2f",
        ),
        ("http://h/a b\r\nX: y", "http://h/a%20b%0D%0AX:%20y"),
        ("http://h_o-st./", "http://h_o-st./"),
    ],
)
def test_what_is_sent(text: str, sent: str) -> None:
    assert Url.parse(text).sent == sent


@pytest.mark.parametrize(
    "text",
    [
        "h",
        "/p",
        "file:///p",
        "http://",
        "http:///p",
        "http://h:x/",
        "http://h:0/",
        "http://h:65536/",
        "http://h:\u0661/",
        "http://a b/",
        "http://h\r\n/",
        "http://[::x]/",
        "http://[::1/",
        "http://[fe80::1%]x]/",
        "http://[fe80::1%a b]/",
        "http://[fe80::1%a\r\nX: y]/",
        "http://a..b/",
        "http://" + "a" * 64 + "/",
        "http://\ud800/",
    ],
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError):
        Url.parse(text)


@pytest.mark.parametrize(
    ("reference", "sent"),
    [
        ("nar/x", "http://cache.example/a/b/nar/x"),
        ("./x", "http://cache.example/a/b/x"),
        ("../x", "http://cache.example/a/x"),
        ("../../../../x", "http://cache.example/x"),
        ("x/..", "http://cache.example/a/b/"),
        ("/x", "http://cache.example/x"),
        ("//other/x", "http://other/x"),
        ("?q=../x", "http://cache.example/a/b/?q=../x"),
        ("", "http://cache.example/a/b/"),
        ("x:y", "http://cache.example/a/b/x:y"),
        ("x//y", "http://cache.example/a/b/x//y"),
        ("x%2F..%2Fy", "http://cache.example/a/b/x%2F..%2Fy"),
        ("https://other/x?y", "https://other/x?y"),
    ],
)
def test_what_a_reference_means(reference: str, sent: str) -> None:
    assert Url.parse(BASE).join(reference).sent == sent


def test_a_login_stays_with_its_origin() -> None:
    home = Url.parse("http://u:p%40@h/a/")
    assert home.login == ("u", "p@")
    assert home.join("x").login == ("u", "p@")
    assert home.join("//other/x").login is None
    assert home.join("http://h/x").login is None


def test_secrets_are_in_no_text() -> None:
    url = Url.parse("https://user:hunter2@h:8443/p?token=hunter2")
    assert str(url) == "https://h:8443/p?…"
    assert "hunter2" not in repr(url)
