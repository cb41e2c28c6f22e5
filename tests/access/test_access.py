"""Who may do what, by what he sends."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvixstore.access import ALL, Access, Denied, Right, parse_tokens
from tvixstore.access.credentials import token_in

if TYPE_CHECKING:
    from collections.abc import Iterable

TOKENS = parse_tokens(
    "r read\nw write\na admin\nrw read,write\nold read expires=2000-01-01T00:00:00Z\n"
    "new read expires=2999-01-01T00:00:00Z\n",
    "tokens",
)
HEADERS = [None, "Bearer r", "Bearer w", "Bearer a", "Bearer rw", "Bearer old", "Bearer no"]


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer x", "x"),
        ("bearer  x ", "x"),
        ("BEARER x y", "x y"),
        (basic("user:x"), "x"),
        (basic(":x"), "x"),
        (basic("user:x:y"), "x:y"),
        (basic("user:pässword"), "pässword"),
        ("", None),
        ("x", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic", None),
        ("Basic !", None),
        ("Basic ü", None),
        ("Basic /w==", None),
        (basic("user"), None),
        (basic("user:"), None),
        ("Digest username=x", None),
        ("Bearer " + "x" * 5000, None),
    ],
)
def test_a_token_is_a_bearer_s_or_a_password(header: str, token: str | None) -> None:
    assert token_in(header) == token


@given(
    st.text()
    | st.sampled_from(["Basic ", "Bearer "]).flatmap(lambda scheme: st.text().map(scheme.__add__))
    | st.binary().map(lambda login: "Basic " + base64.b64encode(login).decode())
)
def test_any_header_is_a_token_or_none(header: str) -> None:
    assert token_in(header) != ""
    access = Access(frozenset(), TOKENS)
    assert isinstance(access.check("admin", header), Denied) or token_in(header) == "a"


def allowed(access: Access, header: str | None) -> set[Right]:
    return {right for right in ALL if access.check(right, header) is None}


def test_rights_imply_no_others() -> None:
    access = Access(frozenset(), TOKENS)
    assert [allowed(access, header) for header in HEADERS] == [
        set(),
        {"read"},
        {"write"},
        {"admin"},
        {"read", "write"},
        set(),
        set(),
    ]


def test_what_everybody_may_holders_of_tokens_may_too() -> None:
    access = Access(frozenset({"read"}), TOKENS)
    assert [allowed(access, header) for header in HEADERS] == [
        {"read"},
        {"read"},
        {"read", "write"},
        {"read", "admin"},
        {"read", "write"},
        # Whoever sends credentials is told when they are of no use.
        set(),
        set(),
    ]


def test_what_is_withheld_nobody_may() -> None:
    access = Access(frozenset({"read", "write"}), TOKENS, withheld=frozenset({"write"}))
    assert [allowed(access, header) for header in HEADERS[:5]] == [
        {"read"},
        {"read"},
        {"read"},
        {"read", "admin"},
        {"read"},
    ]
    for header in HEADERS[:5]:
        denied = access.check("write", header)
        assert denied is not None and not denied.anonymous
        assert denied.reason.startswith("nothing may be put here: writes are off")


def test_without_tokens_credentials_mean_nothing() -> None:
    for header in HEADERS:
        assert allowed(Access.of("read"), header) == {"read"}
        denied = Access.of("read").check("write", header)
        # None would help.
        assert denied is not None and not denied.anonymous


@pytest.mark.parametrize("header", HEADERS)
def test_what_takes_no_right_is_for_everybody(header: str | None) -> None:
    assert Access(frozenset(), TOKENS).check(None, header) is None


def reasons(access: Access, headers: Iterable[str | None]) -> list[tuple[str, bool]]:
    found = [access.check("read", header) for header in headers]
    return [(denied.reason.split(":")[0], denied.anonymous) for denied in found if denied]


def test_a_refusal_says_what_would_help() -> None:
    access = Access(frozenset(), TOKENS)
    assert reasons(access, [None, "Bearer no", "nonsense", "Bearer old", "Bearer w"]) == [
        ("reading takes credentials here", True),
        ("these credentials are not known here", True),
        ("these credentials are not known here", True),
        ("the token has expired", True),
        ("the token lacks the right `read`", False),
    ]


def test_a_token_expires_while_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(frozenset(), TOKENS)
    assert access.check("read", "Bearer new") is None
    monkeypatch.setattr("time.time", lambda: 32_503_680_000.0)
    assert access.check("read", "Bearer new") == access.check("read", "Bearer old")


def test_tokens_that_are_taken_out_count_no_more() -> None:
    access = Access(frozenset(), TOKENS)
    assert access.check("read", "Bearer r") is None
    access.renew(parse_tokens("other read", "tokens"))
    assert access.check("read", "Bearer r") is not None
    assert access.check("read", "Bearer other") is None


def test_however_many_names_come_with_a_token_little_is_remembered() -> None:
    access = Access(frozenset(), TOKENS)
    for number in range(3000):
        assert access.check("read", basic(f"{number}:r")) is None
        assert access.check("read", basic(f"{number}:no")) is not None
    assert len(access._remembered) == 1024


def test_unknown_credentials_are_told_of_once_a_minute_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    access = Access(frozenset(), TOKENS)
    with caplog.at_level(logging.WARNING, "tvixstore"):
        for _ in range(5):
            access.check("read", "Bearer s3cret")
    (record,) = caplog.records
    assert record.getMessage() == "access.unknown_credentials"
    assert "s3cret" not in str(record.__dict__)
