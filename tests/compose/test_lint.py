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
    return [str(warning).removesuffix(f" ({warning.rule})") for warning in lint(load(text))]


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


ABSENT = "is not a file on this machine"


def about_access(keys: str) -> list[str]:
    found = warnings(f"[daemon]\n{keys}\n")
    return [warning.removeprefix("[daemon]: ") for warning in found if ABSENT not in warning]


def test_tokens_that_others_can_read_are_warned_of() -> None:
    tls = 'tls_cert = "c"\ntls_key = "k"\n'
    everywhere = 'http = "[::]:9000"\ntokens_file = "t"\n'
    (warning,) = about_access(everywhere)
    assert warning.startswith("tokens_file: without tls_cert: tokens can be read by anybody on")
    assert about_access(everywhere + tls) == about_access('tokens_file = "t"') == []


def test_writes_from_other_machines_with_tokens_are_fine() -> None:
    everywhere = 'http = "[::]:9000"\nwrites = true\ntls_cert = "c"\ntls_key = "k"\n'
    assert about_access(everywhere + 'tokens_file = "t"') == []
    assert len(about_access(everywhere)) == 1


def test_tokens_that_nobody_needs_are_warned_of() -> None:
    assert about_access('tokens_file = "t"\nwrites = false') == [
        "tokens_file: is hardly of use: everybody may read, and with writes = false nobody may put"
    ]
    assert about_access('tokens_file = "t"\nwrites = false\nanonymous_read = false') == []


def test_certificates_that_nobody_sees_are_warned_of() -> None:
    tls = 'tls_cert = "c"\ntls_key = "k"\nclient_ca = "a"\n'
    assert about_access(tls) == []
    assert about_access(tls + 'grpc = "off"') == [
        "client_ca: is of no use: gRPC is not served over TCP"
    ]
    assert about_access(tls + 'grpc = "unix:g"\nhttp = "unix:h"') == [
        "tls_cert: is of no use: unix sockets go without TLS",
        "client_ca: is of no use: gRPC is not served over TCP",
    ]


def test_files_of_access_that_are_not_there_are_warned_of() -> None:
    found = warnings(
        '[daemon]\ntokens_file = "t"\ntls_cert = "c"\ntls_key = "k"\nclient_ca = "a"\n'
    )
    assert [warning.split(": ")[1] for warning in found if ABSENT in warning] == [
        "tls_cert",
        "tls_key",
        "client_ca",
        "tokens_file",
    ]


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
