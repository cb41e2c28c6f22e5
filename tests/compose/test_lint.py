"""Compose files that are legal, and probably not what was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.compose.test_load import SIGNED, load, substituter
from tvixstore.compose import lint
from tvixstore.compose.model import Daemon, Store, Substituter

SHIPPED = Path(__file__).parents[2] / "compose.toml"
FIRST = "[[substituters]] #1 (cache.example.org)"


def warnings(text: str) -> list[str]:
    return [str(warning) for warning in lint(load(text))]


def test_a_signed_substituter_over_https_is_fine() -> None:
    assert warnings(substituter(SIGNED)) == []


def test_an_unsigned_one_is_warned_of_and_over_http_twice() -> None:
    assert warnings(substituter("unsigned = true", url="http://cache.example.org")) == [
        f"{FIRST}: unsigned: whoever runs this cache decides what is in the paths it has",
        f"{FIRST}: url: is plain http and unsigned: anybody on the way can replace what it has",
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]", "http://localhost"])
def test_nobody_is_on_the_way_to_this_machine(url: str) -> None:
    assert len(warnings(substituter("unsigned = true", url=url))) == 1


def test_credentials_over_http_are_warned_of() -> None:
    assert warnings(substituter(SIGNED, url="http://u:p@cache.example.org")) == [
        f"{FIRST}: url: is plain http: its credentials can be read by anybody on the way"
    ]


def test_a_file_that_is_not_there_is_warned_of() -> None:
    assert warnings(substituter(SIGNED, 'ca_file = "absent.pem"')) == [
        f"{FIRST}: ca_file: /etc/tvix/absent.pem is not a file on this machine"
    ]


def test_a_timeout_that_starves_the_retries_is_warned_of() -> None:
    assert warnings(substituter(SIGNED, 'timeout = "10s"')) == [
        f"{FIRST}: timeout: 10s leaves a lookup_timeout of 10s no second attempt"
    ]


def test_writes_from_other_machines_are_warned_of() -> None:
    assert warnings('[daemon]\nhttp = "[::]:9000"\nwrites = true\n') == [
        "[daemon]: writes: is true: whoever can connect can put what he likes"
    ]
    assert warnings('[daemon]\nhttp = "[::]:9000"\n') == warnings("[daemon]\nwrites = true\n") == []


def test_only_optional_ones_are_warned_of() -> None:
    assert warnings(substituter(SIGNED, "optional = true")) == [
        "[[substituters]]: optional: is true for all: while all are down, lookups fail"
    ]


def test_none_enabled_is_warned_of() -> None:
    assert warnings(substituter(SIGNED, "enabled = false")) == [
        "[[substituters]]: enabled: is false for all: only the store is asked"
    ]


@pytest.mark.parametrize(
    ("section", "model"),
    [("[daemon]", Daemon), ("[store]", Store), ("[[substituters]]", Substituter)],
)
def test_the_shipped_file_explains_every_key(
    section: str, model: type[Daemon | Store | Substituter]
) -> None:
    block = SHIPPED.read_text().split(f"\n{section}\n")[1].split("\n[")[0]
    keys = set(re.findall(r"^#?([a-z_]+) = ", block, re.M))
    assert keys == set(model.model_fields)


def test_the_defaults_that_the_shipped_file_tells_are_the_defaults() -> None:
    text = SHIPPED.read_text().split("\n[[substituters]]\n")[0]
    told = re.sub(r"^#([a-z_]+ = )", r"\1", text, flags=re.M)
    # Keys without a default are shown with an example.
    examples = "max_size|max_age|tls_cert|tls_key|client_ca|tokens_file|sign_with"
    told = re.sub(rf"^({examples}) =", "#", told, flags=re.M)
    assert (load(told).daemon, load(told).store) == (load("").daemon, load("").store)
