"""The tokens that are known here, from a file with one a line.

    TOKEN RIGHT[,RIGHT] [expires=RFC3339] # comment

What is kept of a token is a digest under a key that is drawn at each start, and tokens are found by
it. How long finding one takes, or not finding one, thus depends on bytes that nobody outside can
know or steer, and says nothing of how much of a token was right.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from tvixstore.access.rights import ALL, Right, Rights
from tvixstore.errors import ConfigError

# A file of thousands of tokens is smaller; a wrong path (a disk, a log) is not.
LONGEST: Final = 1 << 20

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,1024}")
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_FORM: Final = "write TOKEN RIGHT[,RIGHT] [expires=RFC3339] # comment"
_KEY: Final = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token is good for, until `expires` in Unix seconds, if it ever does."""

    rights: Rights
    expires: float | None = None


class Tokens:
    """The grants of all tokens, each of which is given by its text."""

    def __init__(self, grants: Mapping[str, Grant]) -> None:
        self._grants = {_digest(token): grant for token, grant in grants.items()}

    def __len__(self) -> int:
        return len(self._grants)

    def find(self, token: str) -> Grant | None:
        """What `token` is good for, expired or not; `None` if nobody knows it."""
        return self._grants.get(_digest(token))


def parse_tokens(text: str, name: str) -> Tokens:
    """The tokens in `text`; raises `ConfigError`, one line a mistake, none of which shows a token.

    Messages call the file `name`.
    """
    grants: dict[str, Grant] = {}
    lines: dict[str, int] = {}
    mistakes = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if (parsed := _parse_line(line)) is None:
                continue
            token, grant = parsed
            if token in lines:
                raise ValueError(f"the token is that of line {lines[token]}: keep one of the two")
        except ValueError as error:
            mistakes.append(f"{name}: line {number}: {error}")
            continue
        grants[token], lines[token] = grant, number
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Tokens(grants)


def _parse_line(line: str) -> tuple[str, Grant] | None:
    """Token and grant, or `None` for a line without any. No message has any of it in it."""
    words = []
    for word in line.split():
        if word.startswith("#"):
            break
        words.append(word)
    if not words:
        return None
    token, *rest = words
    if _TOKEN.fullmatch(token) is None:
        raise ValueError("the token has other characters than printable ASCII, or over 1024")
    if not rest:
        raise ValueError(f"the token has no rights: {_FORM}")
    if len(rest) > 2:
        raise ValueError(f"there is something behind the rights and the expiry: {_FORM}")
    rights = _parse_rights(rest[0])
    return token, Grant(rights, _parse_expiry(rest[1]) if len(rest) == 2 else None)


def _parse_rights(text: str) -> Rights:
    named = text.split(",")
    if not all(name in ALL for name in named):
        # Not quoted: who swapped the two words has a token there.
        raise ValueError(f"the second word is not a list of {', '.join(ALL)}: {_FORM}")
    return frozenset(cast("list[Right]", named))


def _parse_expiry(text: str) -> float:
    time = text.removeprefix("expires=")
    if time == text or _TIME.fullmatch(time) is None:
        raise ValueError(
            "the third word is not a time of expiry: write expires=2030-01-31T00:00:00Z"
        )
    try:
        return datetime.fromisoformat(time.upper()).timestamp()
    except ValueError:
        raise ValueError("there is no such time as that of its expiry") from None


def _digest(token: str) -> bytes:
    # What came over the wire may have surrogates in it.
    return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=_KEY).digest()
