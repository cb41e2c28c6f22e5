"""Store paths: `/nix/store/<32 digits>-<name>`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tvixstore.errors import InvalidData
from tvixstore.nix import nixbase32

STORE_DIR = "/nix/store"
HASH_BYTES = 20
HASH_DIGITS = 32

_NAME = re.compile(r"[0-9a-zA-Z+\-._?=]{1,211}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StorePath:
    """A store path, by its 20-byte hash (the key of every path-info service) and its name."""

    hash: bytes
    name: str

    def __post_init__(self) -> None:
        if len(self.hash) != HASH_BYTES:
            raise InvalidData(f"store path hash is {len(self.hash)} bytes, expected {HASH_BYTES}")
        if not _NAME.fullmatch(self.name):
            raise InvalidData(f"{self.name!r} is not a store path name")

    @classmethod
    def from_base_name(cls, text: str) -> StorePath:
        """From `<32 digits>-<name>`."""
        if len(text) <= HASH_DIGITS or text[HASH_DIGITS] != "-":
            raise InvalidData(f"{text!r} is not a store path's base name")
        return cls(nixbase32.decode(text[:HASH_DIGITS]), text[HASH_DIGITS + 1 :])

    @classmethod
    def from_absolute(cls, text: str) -> StorePath:
        """From `/nix/store/<32 digits>-<name>`, and nothing below it."""
        if not text.startswith(STORE_DIR + "/"):
            raise InvalidData(f"{text!r} is not below {STORE_DIR}")
        return cls.from_base_name(text[len(STORE_DIR) + 1 :])

    @property
    def digits(self) -> str:
        """The hash in nixbase32, as it stands in names and URLs."""
        return nixbase32.encode(self.hash)

    @property
    def base_name(self) -> str:
        return f"{self.digits}-{self.name}"

    def order(self) -> tuple[bytes, str]:
        """The key that sorts as Nix does, by base name: digits begin with the last byte."""
        return self.hash[::-1], self.name

    def __str__(self) -> str:
        return f"{STORE_DIR}/{self.base_name}"


def check_new_name(name: str) -> None:
    """Raises `InvalidData` unless a path may be made under `name`.

    That is stricter than what is read: later Nix refuses `.`, `..`, `.-…` and `..-…`, which are
    out there all the same.
    """
    if not _NAME.fullmatch(name) or name.split("-", 1)[0] in (".", ".."):
        raise InvalidData(
            f"{name!r} is not a name for a new store path: take up to 211 ASCII letters, digits "
            "and +-._?=, and no dot or two alone or before the first -"
        )
