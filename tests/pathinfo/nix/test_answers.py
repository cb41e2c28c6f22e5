"""What upstreams say when they would rather not: Retry-After in every form, and in none."""

from __future__ import annotations

import pytest

from tvixstore.pathinfo.nix.answers import MAX_RETRY_AFTER, retry_after


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (" 7 ", 7.0),
        ("0", 0.0),
        ("9" * 5000, MAX_RETRY_AFTER),
        ("Fri, 01 Jan 9999 00:00:00 GMT", MAX_RETRY_AFTER),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_seconds_and_dates_are_seconds_up_to_a_limit(said: str, seconds: float) -> None:
    assert retry_after(said) == seconds


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "-5",
        "1e9",
        "٣",
        "soon",
        "Mon, 01 Jan 2030 00:00:00 +9999",
        f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT",
        f"Mon, 01 Jan 2030 {'9' * 20}:00:00 GMT",
        f"Mon, 01 Jan 2030 00:00:00 -{'9' * 20}",
    ],
)
def test_nonsense_says_nothing(said: str | None) -> None:
    assert retry_after(said) is None
