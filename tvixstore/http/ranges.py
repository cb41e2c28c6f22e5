"""Conditional and partial requests, as far as a body with one strong validator needs them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Longer numbers than this are nobody's offsets; the header is then ignored like any other bad one.
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,20})-(\d{0,20})[ \t]*", re.ASCII | re.IGNORECASE)
_TAGS = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Part:
    """`length` bytes from `offset`."""

    offset: int
    length: int


class Unsatisfiable(Exception):
    """The range begins behind the end."""


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the client has the body already."""
    return if_none_match.strip() == "*" or etag in _TAGS.findall(if_none_match)


def select(range_header: str | None, if_range: str | None, etag: str, size: int) -> Part | None:
    """The one part asked for, or `None` for everything. Raises `Unsatisfiable`.

    Several ranges in one request, a malformed header and an `If-Range` of another body are
    answered with everything, as RFC 9110 allows for the first and asks for the others.
    """
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return None
    if (match := _RANGE.fullmatch(range_header.strip())) is None:
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size) if last else None
    offset = int(first)
    end = int(last) + 1 if last else size
    if last and end <= offset:
        return None
    if offset >= size:
        raise Unsatisfiable
    return Part(offset, min(end, size) - offset)


def _suffix(length: int, size: int) -> Part:
    if length == 0 or size == 0:
        raise Unsatisfiable
    length = min(length, size)
    return Part(size - length, length)
