"""Token files: what they grant, what is wrong with them, and that no message shows a token."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvixstore.access import Grant, parse_tokens
from tvixstore.errors import ConfigError

SECRET = "s3cret-of-a-test"


def test_a_line_is_a_token_with_its_rights() -> None:
    tokens = parse_tokens(
        "# of the team\n"
        "\n"
        "reader read # everybody\n"
        "\tpusher   write,read\t#\n"
        "  # nothing here\n"
        "boss#1 admin\r\n"
        "guest read expires=2030-01-31T00:00:00Z",
        "tokens",
    )
    assert len(tokens) == 4
    assert tokens.find("reader") == Grant(frozenset({"read"}))
    assert tokens.find("pusher") == Grant(frozenset({"read", "write"}))
    assert tokens.find("boss#1") == Grant(frozenset({"admin"}))
    expires = datetime.fromisoformat("2030-01-31T00:00:00+00:00").timestamp()
    assert tokens.find("guest") == Grant(frozenset({"read"}), expires)


@pytest.mark.parametrize(
    "token", ["", "reade", "reader ", "READER", "reader\0", "\udcff", "x" * 9999]
)
def test_other_tokens_are_not_known(token: str) -> None:
    assert parse_tokens("reader read", "tokens").find(token) is None


def test_a_file_without_tokens_knows_none() -> None:
    assert len(parse_tokens("\n# none yet\n", "tokens")) == 0


@pytest.mark.parametrize(
    "time",
    ["2030-01-31T00:00:00+01:00", "2030-01-31t00:00:00.5z", "2030-01-31T23:59:59.123456-12:00"],
)
def test_times_are_those_of_rfc_3339(time: str) -> None:
    grant = parse_tokens(f"t read expires={time}", "tokens").find("t")
    assert grant is not None
    assert grant.expires == datetime.fromisoformat(time.upper()).timestamp()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{SECRET}", "the token has no rights"),
        (f"{SECRET} # read", "the token has no rights"),
        (f"{SECRET} reed", "the second word is not a list of read, write, admin"),
        (f"{SECRET} read,", "the second word is not a list"),
        (f"{SECRET} read, write", "the second word is not a list"),
        (f"read {SECRET}", "the second word is not a list"),
        (f"{SECRET} read {SECRET}", "the third word is not a time of expiry"),
        (f"{SECRET} read expires=2030-01-31", "the third word is not a time of expiry"),
        (f"{SECRET} read expires=2030-01-31T00:00:00", "the third word is not a time of expiry"),
        (f"{SECRET} read expires=2030-02-31T00:00:00Z", "there is no such time"),
        (f"{SECRET} read expires=2030-01-31T00:00:00Z {SECRET}", "there is something behind"),
        (f"{SECRET}ü read", "the token has other characters than printable ASCII"),
        (
            f"{SECRET * 100} read",
            "the token has other characters than printable ASCII, or over 1024",
        ),
        ("reader write", "the token is that of line 1: keep one of the two"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_without_the_token(line: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tokens(f"reader read\n{line}\n", "/etc/tokens")
    message = str(caught.value)
    assert message.startswith(f"/etc/tokens: line 2: {reason}")
    assert "\n" not in message
    assert SECRET not in message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tokens("a\nb read\nc everything\n", "tokens")
    assert [line.split(":")[1] for line in str(caught.value).split("\n")] == [" line 1", " line 3"]


@given(
    st.text(st.sampled_from("ab#,=: \t\r\n\u2028ü0\0") | st.sampled_from("readwriteadminexpires"))
)
def test_any_text_is_tokens_or_a_mistake(text: str) -> None:
    try:
        parse_tokens(text, "tokens")
    except ConfigError:
        pass
