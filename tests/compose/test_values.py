"""Durations, sizes, addresses and the like: what is read, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvixstore.compose.values import (
    Address,
    Interpolated,
    format_duration,
    format_size,
    host_of,
    parse_address,
    parse_duration,
    parse_name,
    parse_path,
    parse_size,
    quote,
)

FOLDER = Path("/srv/cache")

DURATIONS = {"250ms": 0.25, "5s": 5.0, "2m": 120.0, "1h": 3600.0, "1.5s": 1.5, "0s": 0.0}

SIZES = {
    0: 0,
    4096: 4096,
    "4096": 4096,
    "256KiB": 256 << 10,
    "1.5MiB": 3 << 19,
    "50GiB": 50 << 30,
    "2 TiB": 2 << 40,
    "7B": 7,
}

ADDRESSES = {
    "127.0.0.1:9000": Address("tcp", "127.0.0.1", 9000),
    "localhost:0": Address("tcp", "localhost", 0),
    "[::]:9000": Address("tcp", "::", 9000),
    "[::1]:65535": Address("tcp", "::1", 65535),
    "unix:/run/tvix.sock": Address("unix", path="/run/tvix.sock"),
    "unix:tvix.sock": Address("unix", path="/srv/cache/tvix.sock"),
    "off": Address("off"),
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5, "5 has no unit"),
        (0.5, "0.5 has no unit"),
        ("5", '"5" has no unit'),
        ("", '"" is not a duration'),
        ("5 min", '"5 min" is not a duration'),
        ("-5s", '"-5s" is not a duration'),
        (True, "true is not a duration"),
        (["5s"], "an array is not a duration"),
        ("9" * 400 + "h", "is not a duration"),
        ("100000h", "longer than ten years"),
    ],
)
def test_a_wrong_duration_says_what_to_write(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_duration(value)


@given(st.integers(0, 10**9))
def test_a_formatted_duration_reads_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "250ms"), (1.5, "1500ms"), (5.0, "5s"), (90.0, "90s"), (3600.0, "1h")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("value", "size"), SIZES.items())
def test_a_size_is_bytes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("50GB", 'no such unit: write "50GiB"'),
        ("50g", 'no such unit: write "50GiB"'),
        ("much", '"much" is not a size'),
        (-1, "-1 is out of range"),
        (10**30, "a huge number is out of range"),
        ("9" * 5000, "is not a size"),
        (True, "true is not a size"),
        (1.5, "1.5 is not a size"),
    ],
)
def test_a_wrong_size_says_what_to_write(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_size(value)


@given(st.integers(0, 1 << 60))
def test_a_formatted_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(("text", "address"), ADDRESSES.items())
def test_an_address_is_a_host_and_port_a_socket_or_off(text: str, address: Address) -> None:
    assert parse_address(text, FOLDER) == address


@pytest.mark.parametrize("text", [text for text in ADDRESSES if text != "unix:tvix.sock"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_address(text, FOLDER)) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (9000, "9000 is not an address"),
        ("9000", '"9000" has no port'),
        (":9000", 'names no host: write "127.0.0.1:9000"'),
        ("localhost:65536", '"65536" is not a port'),
        ("localhost:-1", '"-1" is not a port'),
        ("localhost:http", '"http" is not a port'),
        ("localhost:", '"" is not a port'),
        ("::1:9000", r'write IPv6 addresses as "\[::1\]:9000"'),
        ("[::g]:9000", r'"\[::g\]" is not an IPv6 address'),
        ("http://localhost:9000", "is a URL, not an address"),
        ("local host:9000", '"local host" is not a host name'),
        ("unix:", '"" is not a path'),
        ("unix:/" + "a" * 110, "too long for a unix socket"),
    ],
)
def test_a_wrong_address_says_what_to_write(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(value, FOLDER)


def test_a_path_is_relative_to_the_folder_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse_path("./state", FOLDER) == Path("/srv/cache/state")
    assert parse_path("/var/lib/x", FOLDER) == Path("/var/lib/x")
    assert parse_path("~/x", FOLDER) == Path("/home/somebody/x")


@pytest.mark.parametrize("value", ["", "a\0b", 5, "~nobody-is-called-that/x"])
def test_a_wrong_path_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="path|NUL|home"):
        parse_path(value, FOLDER)


@pytest.mark.parametrize("value", ["a b", "", "a/b", ".a", "a\n", 5, "x" * 256, "é"])
def test_a_wrong_name_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        parse_name(value)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:secret@cache.example.org:8080/x", "cache.example.org"),
        ("http://[::1]:80", "::1"),
        ("file:///srv/cache", "file"),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_a_substituter_is_called_by_its_host(url: str, host: str) -> None:
    assert host_of(url) == host


def test_what_the_environment_gave_is_quoted_as_the_file_has_it() -> None:
    assert quote(Interpolated("hunter2", "${PASSWORD}")) == '"${PASSWORD}"'


def test_a_quote_is_short_and_on_one_line() -> None:
    assert quote("a\nb\x1b[0m") == '"a\\nb\\x1b[0m"'
    assert len(quote("x" * 1000)) < 90
