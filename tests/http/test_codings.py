"""Accept-Encoding, by the letter of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvixstore.http.codings import PREFERRED, Coding, accepted

ROWS: dict[str | None, list[str]] = {
    None: ["identity"],
    "": ["identity"],
    "zstd": ["zstd", "identity"],
    "gzip, deflate, br, zstd": ["zstd", "gzip", "identity"],
    "gzip, deflate": ["gzip", "identity"],
    "X-GZIP": ["gzip", "identity"],
    "br": ["identity"],
    "gzip;q=1.0, zstd;q=0.5": ["gzip", "zstd", "identity"],
    "zstd ; Q = 0.001": ["zstd", "identity"],
    "identity, gzip;q=0.5": ["identity", "gzip"],
    "identity;q=0.5, zstd;q=0.5": ["zstd", "identity"],
    "zstd;q=0, gzip": ["gzip", "identity"],
    "zstd, identity;q=0": ["zstd"],
    "zstd, *;q=0": ["zstd"],
    "identity, *;q=0": ["identity"],
    "*": ["identity"],
    "*, gzip": ["gzip", "identity"],
    "*, identity;q=0": ["zstd", "gzip"],
    "*, identity;q=0, zstd;q=0": ["gzip"],
    "identity;q=0": [],
    "*;q=0": [],
    "br, identity;q=0": [],
    "zstd;q=0.0, *;q=0": [],
    # Nonsense is as if nothing was sent.
    "zstd;q=2": ["identity"],
    "zstd;q=0.1234": ["identity"],
    "zstd;level=3": ["identity"],
    "zstd gzip": ["identity"],
    "zstd;": ["identity"],
    "ｚstd": ["identity"],
    ", ,zstd,": ["zstd", "identity"],
}


@pytest.mark.parametrize("header", ROWS)
def test_what_a_client_takes_comes_in_the_order_that_it_likes(header: str | None) -> None:
    assert accepted(header) == ROWS[header]


weights = st.sampled_from(["", ";q=0", ";q=0.5", "; q=1", ";q=1.000"])
names = st.sampled_from(["zstd", "gzip", "identity", "*", "br"])


@given(st.lists(st.tuples(names, weights), unique_by=lambda pair: pair[0]))
def test_nothing_that_is_excluded_is_ever_chosen(pairs: list[tuple[str, str]]) -> None:
    chosen = accepted(", ".join(name + weight for name, weight in pairs))
    refused = {name for name, weight in pairs if weight == ";q=0"}
    named = {name for name, _ in pairs}
    assert not refused & set(chosen)
    if "*" in refused:
        assert set(chosen) <= named
    offered: set[Coding] = set(PREFERRED)
    assert set(chosen) <= offered and len(set(chosen)) == len(chosen)


@given(st.text())
def test_any_header_is_answered(header: str) -> None:
    assert set(accepted(header)) <= set(PREFERRED)
