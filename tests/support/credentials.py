"""Credentials of every kind, and the rights that come with them."""

from __future__ import annotations

import base64

from tvixstore.access import Right, parse_tokens

TOKENS = parse_tokens(
    "r read\nw write\na admin\nrw read,write\nold read,write,admin expires=2000-01-01T00:00:00Z\n",
    "tokens",
)
CREDENTIALS: dict[str, tuple[str | None, set[Right]]] = {
    "none": (None, set()),
    "wrong": ("Bearer x", set()),
    "expired": ("Bearer old", set()),
    "read": ("Bearer r", {"read"}),
    "write": ("Bearer w", {"write"}),
    "admin": ("Bearer a", {"admin"}),
    "by netrc": ("Basic " + base64.b64encode(b"somebody:rw").decode(), {"read", "write"}),
}
