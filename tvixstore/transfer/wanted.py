"""What somebody wants copied: store paths, however they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tvixstore.errors import InvalidData
from tvixstore.nix import STORE_DIR, StorePath, nixbase32

_DIGITS: Final = re.compile(r"[0-9a-z]{32}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A store path by its hash, and what else is known of it."""

    hash: bytes
    # As it was asked for, for messages.
    name: str
    # Only a path with this very NAR is wanted.
    nar_sha256: bytes | None = None

    @classmethod
    def of(cls, path: StorePath, nar_sha256: bytes | None = None) -> Wanted:
        return cls(path.hash, str(path), nar_sha256)


def parse_wanted(text: str) -> Wanted:
    """From `/nix/store/<32 digits>-<name>`, its base name, or the 32 digits alone.

    Raises `InvalidData`, saying what would be right.
    """
    if _DIGITS.fullmatch(text):
        return Wanted(nixbase32.decode(text), text)
    return Wanted.of(parse_store_path(text, ", HASH-NAME or HASH"))


def parse_store_path(text: str, or_else: str = " or HASH-NAME") -> StorePath:
    """From `/nix/store/<32 digits>-<name>`, with a slash behind it too, or its base name.

    Raises `InvalidData`, saying what would be right: that, or what `or_else` says.
    """
    base_name = text.removeprefix(f"{STORE_DIR}/").rstrip("/")
    if base_name.startswith("/"):
        raise InvalidData(f"{text!r} is not a path in {STORE_DIR}")
    path, slash, _ = base_name.partition("/")
    if slash:
        raise InvalidData(
            f"{text!r} is inside of a store path, which is taken as a whole: "
            f"write {f'{STORE_DIR}/{path}'!r}"
        )
    try:
        return StorePath.from_base_name(base_name)
    except InvalidData as error:
        raise InvalidData(
            f"{text!r} is no store path ({error}): write {STORE_DIR}/HASH-NAME{or_else}"
        ) from None
