"""narinfo files: one path of a binary cache, as `Key: value` lines.

Parsing dispatches each line through a table, one row a key. It accepts and refuses what Nix does,
unless said otherwise, and is bounded by the length of the text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvixstore.errors import InvalidData, Unsupported
from tvixstore.nix import nixbase32
from tvixstore.nix.content_address import ContentAddress
from tvixstore.nix.hashes import NixHash
from tvixstore.nix.signature import Signature
from tvixstore.nix.store_path import StorePath

MAX_CHARACTERS = 1 << 20
# Of any value but the references; even the longest of signed URLs are shorter.
MAX_VALUE = 8192
# Each signature by a trusted name costs a verification, and real narinfos have one or two.
MAX_SIGNATURES = 100

_NAR_HASH_BYTES = 32
_MAX_NUMBER = 2**64 - 1
_MAX_DIGITS = len(str(_MAX_NUMBER))
# What is quoted of a value in an error.
_QUOTED = 100


@dataclass(frozen=True, slots=True)
class NarInfo:
    """A parsed narinfo; `references` in the order listed, hashes as raw bytes."""

    store_path: StorePath
    url: str
    compression: str
    nar_sha256: bytes
    nar_size: int
    references: tuple[StorePath, ...] = ()
    file_hash: NixHash | None = None
    file_size: int | None = None
    deriver: StorePath | None = None
    system: str | None = None
    signatures: tuple[Signature, ...] = ()
    ca: ContentAddress | None = None

    def __post_init__(self) -> None:
        if len(self.nar_sha256) != _NAR_HASH_BYTES:
            raise InvalidData(f"NarHash is {len(self.nar_sha256)} bytes, not {_NAR_HASH_BYTES}")
        if not 1 <= self.nar_size <= _MAX_NUMBER:
            raise InvalidData(f"NarSize is {self.nar_size}, expected 1 to 64 bits")
        if not self.url:
            raise InvalidData("URL is empty")
        for text in (self.url, self.compression, self.system or ""):
            if not text.isprintable():
                raise InvalidData(f"{text!r} does not fit on a line of a narinfo")

    @classmethod
    def parse(cls, text: str) -> NarInfo:
        """Raises `InvalidData`, naming the line, on what Nix would call corrupt."""
        if len(text) > MAX_CHARACTERS:
            raise InvalidData(f"narinfo is longer than {MAX_CHARACTERS} characters")
        if not text.endswith("\n"):
            raise InvalidData("narinfo does not end with a newline")
        values: dict[str, Any] = {"compression": "bzip2"}
        signatures: list[Signature] = []
        for number, line in enumerate(text[:-1].split("\n"), 1):
            key, colon, value = line.partition(": ")
            if not colon or not line.isprintable():
                raise InvalidData(f"narinfo line {number} is {line[:_QUOTED]!r}, not `Key: value`")
            row = _ROWS.get(key)
            if row is None:
                continue
            name, parse = row
            if len(value) > MAX_VALUE and name != "references":
                raise InvalidData(f"narinfo line {number}, {key}, is longer than {MAX_VALUE}")
            # References that were empty so far may come again, as with Nix.
            if name in _ONCE and values.get(name, ()) != ():
                raise InvalidData(f"narinfo line {number} is a second {key}")
            try:
                parsed = parse(value)
            except InvalidData as error:
                # It may quote what it is about, and that may be as long as a narinfo.
                reason = str(error)[: 2 * _QUOTED]
                raise InvalidData(f"narinfo line {number}, {key}: {reason}") from None
            if name == "signatures":
                signatures += parsed
            else:
                values[name] = parsed
        absent = [key for key in _REQUIRED if _ROWS[key][0] not in values]
        if absent:
            raise InvalidData(f"narinfo has no {', no '.join(absent)}")
        if len(signatures) > MAX_SIGNATURES:
            raise InvalidData(f"narinfo has {len(signatures)} Sig lines, limit {MAX_SIGNATURES}")
        return cls(signatures=tuple(signatures), **values)

    def __str__(self) -> str:
        """In the order of keys that Nix writes; ends with a newline.

        Without compression the file is the NAR, and FileHash and FileSize say so even where they
        are not known: some commands of Nix 2.8 abort without FileHash.
        """
        file_hash, file_size = self.file_hash, self.file_size
        if self.compression == "none" and file_hash is None:
            file_hash, file_size = NixHash("sha256", self.nar_sha256), self.nar_size
        references = " ".join([reference.base_name for reference in self.references])
        lines = [
            ("StorePath", self.store_path),
            ("URL", self.url),
            ("Compression", self.compression),
            ("FileHash", file_hash),
            ("FileSize", file_size),
            ("NarHash", f"sha256:{nixbase32.encode(self.nar_sha256)}"),
            ("NarSize", self.nar_size),
            ("References", references),
            ("Deriver", None if self.deriver is None else self.deriver.base_name),
            ("System", self.system),
            *[("Sig", signature) for signature in self.signatures],
            ("CA", self.ca),
        ]
        return "".join([f"{key}: {value}\n" for key, value in lines if value is not None])


def _parse_nar_hash(text: str) -> bytes:
    nar_hash = NixHash.parse(text)
    if nar_hash.algorithm != "sha256":
        raise InvalidData(f"{text!r} is not of sha256, which is what signatures cover")
    return nar_hash.digest


def _parse_number(text: str) -> int:
    # What int() takes beyond digits (signs, underscores, other scripts), and endless numbers.
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidData(f"{text[:_QUOTED]!r} is not a number")
    number = int(text)
    if number > _MAX_NUMBER:
        raise InvalidData(f"{text} is above 64 bits")
    return number


def _parse_references(text: str) -> tuple[StorePath, ...]:
    return tuple([StorePath.from_base_name(name) for name in text.split()])


def _parse_deriver(text: str) -> StorePath | None:
    return None if text == "unknown-deriver" else StorePath.from_base_name(text)


def _parse_signature(text: str) -> list[Signature]:
    """None where it isn't Ed25519's: Nix doesn't look at signatures before it trusts their key."""
    try:
        return [Signature.parse(text)]
    except InvalidData:
        return []


def _parse_ca(text: str) -> ContentAddress | None:
    """`None` where it is a kind that only newer Nix knows: the signatures vouch for the path."""
    try:
        return ContentAddress.parse(text)
    except Unsupported:
        return None


# One row a key: the field that it fills, and how its value is read.
_ROWS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "StorePath": ("store_path", StorePath.from_absolute),
    "URL": ("url", str),
    "Compression": ("compression", lambda text: text or "bzip2"),
    "FileHash": ("file_hash", NixHash.parse),
    "FileSize": ("file_size", _parse_number),
    "NarHash": ("nar_sha256", _parse_nar_hash),
    "NarSize": ("nar_size", _parse_number),
    "References": ("references", _parse_references),
    "Deriver": ("deriver", _parse_deriver),
    "System": ("system", str),
    "Sig": ("signatures", _parse_signature),
    "CA": ("ca", _parse_ca),
}
_REQUIRED = ("StorePath", "URL", "NarHash", "NarSize")
_ONCE = ("references", "ca")
