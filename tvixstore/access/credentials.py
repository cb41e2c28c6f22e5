"""The token in an Authorization header: `Bearer TOKEN`, or the password of `Basic`.

The password, so that a netrc file is enough: Nix and curl send nothing else. Which user it names
does not matter.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

# Of a header that is looked at. Nobody's token is as long.
_LONGEST: Final = 4096


def token_in(authorization: str) -> str | None:
    """The token that a header's value carries, or `None` if there is none in it."""
    if len(authorization) > _LONGEST:
        return None
    scheme, _, rest = authorization.strip(" \t").partition(" ")
    rest = rest.strip(" \t")
    match scheme.lower():
        case "bearer":
            return rest or None
        case "basic":
            return _password(rest)
    return None


def _password(encoded: str) -> str | None:
    try:
        login = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    # A user name cannot have a colon in it, a password can.
    return login.partition(":")[2] or None
