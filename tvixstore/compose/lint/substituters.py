"""Rules about `[[substituters]]`."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from tvixstore.compose.config import Config
from tvixstore.compose.lint.places import substituters
from tvixstore.compose.mistakes import Mistake
from tvixstore.compose.values import is_loopback

_SECTION = "[[substituters]]"


def none_enabled(config: Config) -> Iterator[Mistake]:
    if config.substituters and not any(substituters(config)):
        yield Mistake(_SECTION, "enabled", "is false for all: only the store is asked")


def only_optional(config: Config) -> Iterator[Mistake]:
    enabled = [substituter for _, substituter in substituters(config)]
    if enabled and all(substituter.optional for substituter in enabled):
        yield Mistake(_SECTION, "optional", "is true for all: while all are down, lookups fail")


def unsigned(config: Config) -> Iterator[Mistake]:
    for label, substituter in substituters(config):
        if substituter.unsigned:
            text = "whoever runs this cache decides what is in the paths it has"
            yield Mistake(label, "unsigned", text)


def plain_unsigned(config: Config) -> Iterator[Mistake]:
    for label, substituter in substituters(config):
        if substituter.unsigned and is_exposed(substituter.url):
            text = "is plain http and unsigned: anybody on the way can replace what it has"
            yield Mistake(label, "url", text)


def nothing_matches(config: Config) -> Iterator[Mistake]:
    """An `except` that takes out all that `only` lets in."""
    for label, substituter in substituters(config):
        only = substituter.only or ("*",)
        if substituter.excepted and all(
            any(_covers(wide, narrow) for wide in substituter.excepted) for narrow in only
        ):
            yield Mistake(
                label, "except", "leaves nothing of what only lets in: this cache is never used"
            )


def same_cache(config: Config) -> Iterator[Mistake]:
    """The same cache twice, unless for different names."""
    seen: dict[tuple[str, str | None], str] = {}
    for label, substituter in substituters(config):
        if substituter.only or substituter.excepted:
            continue
        place = substituter.url.rstrip("/"), substituter.proxy
        if place in seen:
            yield Mistake(label, "url", f'is the same as that of "{seen[place]}": keep one')
        seen.setdefault(place, substituter.name)


def is_exposed(url: str) -> bool:
    """Whether others can read what goes there."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "grpc+http") and not is_loopback(parts.hostname or "")


def _covers(wide: str, narrow: str) -> bool:
    """Whether all that the glob `narrow` matches, `wide` does too; `False` where that is hard."""
    if wide == narrow:
        return True
    # A star matches whatever a glob stands for, written out as it is; other wildcards do not.
    return not set("?[") & set(wide) and fnmatchcase(narrow, wide)
