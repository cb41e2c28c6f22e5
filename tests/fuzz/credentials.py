"""Who asks: Authorization headers of strangers, and the files that they are held against."""

from __future__ import annotations

import base64
import re
from typing import Any

from tests.fuzz.target import Target, of_text
from tvixstore.access.credentials import token_in
from tvixstore.access.tokens import Tokens, parse_tokens
from tvixstore.errors import ConfigError

_SECRET = "s3cret-token"


class Told(Exception):
    """A refusal that gives a token away."""


def _tokens(text: str) -> Tokens:
    try:
        return parse_tokens(text, "tokens")
    except ConfigError as error:
        if _SECRET in str(error) or not all(
            re.match(r"tokens: line \d+: ", line) for line in str(error).split("\n")
        ):
            raise Told(str(error)) from error
        raise


def _token_law(data: bytes, token: str | None) -> None:
    assert token is None or token
    # Whatever it is, it can be looked for.
    assert token is None or Tokens({}).find(token) is None


CREDENTIALS: dict[str, Target[Any]] = {
    "authorization": Target(
        # As aiohttp hands headers on: what is not UTF-8 is in them as surrogates.
        lambda data: token_in(data.decode(errors="surrogateescape")),
        [
            b"Bearer " + _SECRET.encode(),
            b"Basic " + base64.b64encode(b"user:pass:word"),
            b"basic " + base64.b64encode(b":\xc3\xa9"),
            b"Digest username=x",
        ],
        _token_law,
        (),
        words=(b"Bearer ", b"Basic ", b" ", b"\t", b"=", b":", b"Og==", b"\xff"),
    ),
    "tokens-file": Target(
        of_text(_tokens),
        [
            f"{_SECRET} read,write expires=2030-01-31T00:00:00Z # me\n\n# x\n".encode()
            + b"other admin\n",
            b"a read\nb read,write,admin expires=2030-01-31t00:00:00.5+23:59",
            f"read {_SECRET}\n".encode(),
        ],
        refusals=(ConfigError,),
        words=(
            b"expires=",
            b"read",
            b",",
            b"\n",
            b"#",
            b"0001-01-01T00:00:00+23:59",
            b"\x85",
            b"9999",
        ),
    ),
}
