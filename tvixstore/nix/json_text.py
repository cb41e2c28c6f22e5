"""JSON that strangers send: its nesting is bounded before anybody parses it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from tvixstore.errors import InvalidData

# A listing has two levels for each of the 64 levels of directories that a NAR may have.
MAX_DEPTH: Final = 200

_MARK: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{\]}"]', re.DOTALL)
_OPENING: Final = frozenset({b"[", b"{"})
_CLOSING: Final = {b"]": b"[", b"}": b"{"}


def check_nesting(data: bytes) -> None:
    """Raises `InvalidData` if `data` is no object of JSON as far as its brackets tell."""
    opened: list[bytes] = []
    if not data.strip().startswith(b"{"):
        raise InvalidData("this is not an object of JSON")
    for match in _MARK.finditer(data):
        mark = match[0]
        if mark in _OPENING:
            opened.append(mark)
            if len(opened) > MAX_DEPTH:
                raise InvalidData(f"JSON is nested deeper than {MAX_DEPTH} levels")
        elif mark == b'"' or (mark in _CLOSING and (not opened or opened.pop() != _CLOSING[mark])):
            raise InvalidData("this is not JSON: its brackets or quotes do not match")
    if opened:
        raise InvalidData("this is not JSON: it ends within brackets")


def parse_object(data: bytes) -> dict[str, Any]:
    """The object in `data`, which somebody has bounded; raises `InvalidData`."""
    check_nesting(data)
    try:
        # As text: of bytes, Python takes UTF-16 and surrogates too, and brackets that are hidden
        # in another encoding are not counted above.
        value: dict[str, Any] = json.loads(data.decode())
    except ValueError as error:
        raise InvalidData(f"this is not JSON: {error}") from None
    return value
