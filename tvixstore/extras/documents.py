"""Documents among the extras: what they have to say, by kind, and how two of them go together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tvixstore.errors import InvalidData, TooLong, Untrusted
from tvixstore.extras.names import ExtraName, Kind
from tvixstore.nix import BuildTrace, KeyRing, Realisation
from tvixstore.nix.json_text import parse_object

MAX_DOCUMENT_BYTES: Final = 256 << 10
MAX_SIGNATURES: Final = 100
_MAX_LINK: Final = 4096


class Conflict(InvalidData):
    """It is valid by itself, and contradicts what is here."""


def check_document(name: ExtraName, data: bytes, keys: KeyRing | None = None) -> bytes:
    """The document in `data` as it is kept, if it is one of that name; raises `InvalidData`.

    With `keys` one of them has to have signed it, if it is of a kind that is signed; raises
    `Untrusted` otherwise.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise TooLong(f"{name} is longer than {MAX_DOCUMENT_BYTES} bytes")
    return _CHECKS[name.kind](name, data, keys)


def merge_documents(name: ExtraName, old: bytes | None, new: bytes) -> bytes:
    """What is kept under `name` when `new` is put and `old` is there; raises `Conflict`."""
    if old is None or name.kind is Kind.DEBUG_INFO:
        return new
    try:
        kept, coming = _parse(name, old), _parse(name, new)
    except InvalidData:
        # What is damaged is replaced.
        return new
    if kept.out_path != coming.out_path:
        raise Conflict(
            f"{name} is here as {kept.out_path}, and was now put as {coming.out_path}: "
            "one of the two builds has to go"
        )
    added = tuple(each for each in coming.signatures if each not in kept.signatures)
    if not added:
        return old
    return str(_with_signatures(kept, (*kept.signatures, *added)[:MAX_SIGNATURES])).encode()


def link_of(data: bytes) -> str:
    """Where the NAR is that holds the debug information, relative to the document."""
    archive: str = parse_object(data)["archive"]
    return archive


def _with_signatures(
    document: Realisation | BuildTrace, signatures: tuple[Any, ...]
) -> Realisation | BuildTrace:
    if isinstance(document, Realisation):
        return Realisation(document.id, document.out_path, document.dependencies, signatures)
    return BuildTrace(document.drv_path, document.output_name, document.out_path, signatures)


def _parse(name: ExtraName, data: bytes) -> Realisation | BuildTrace:
    # Its nesting is looked at first: Python's parser is as deep as what it reads.
    parse_object(data)
    text = data.decode()
    if name.kind is Kind.REALISATION:
        realisation = Realisation.parse(text)
        if realisation.id != name.identity:
            raise InvalidData(f"{name} is of {realisation.id[:100]!r}")
        return realisation
    return BuildTrace.parse(*name.output, text)


def _check_signed(name: ExtraName, data: bytes, keys: KeyRing | None) -> bytes:
    document = _parse(name, data)
    if len(document.signatures) > MAX_SIGNATURES:
        raise InvalidData(f"{name} has more than {MAX_SIGNATURES} signatures")
    if isinstance(document, Realisation):
        for identity in document.dependencies:
            ExtraName.realisation(identity)
    if keys is not None and keys.verifier(document.signed_text, document.signatures) is None:
        raise Untrusted(f"{name} has no trusted signature")
    return str(document).encode()


def _check_debug_info(name: ExtraName, data: bytes, keys: KeyRing | None) -> bytes:
    document = parse_object(data)
    kept = {}
    for field in ("archive", "member"):
        value = document.get(field)
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_LINK:
            raise InvalidData(f"{name}: {field} is not a text of up to {_MAX_LINK} characters")
        kept[field] = value
    return json.dumps(kept, separators=(",", ":")).encode()


_CHECKS: Final[Mapping[Kind, Callable[[ExtraName, bytes, KeyRing | None], bytes]]] = {
    Kind.REALISATION: _check_signed,
    Kind.BUILD_TRACE: _check_signed,
    Kind.DEBUG_INFO: _check_debug_info,
}
