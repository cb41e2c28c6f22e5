"""Whether a narinfo is to be believed: by a trusted signature, or by its own content address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from tvixstore.errors import CorruptData, InvalidData, Untrusted
from tvixstore.nar import Contents, Event, NarReader, Regular
from tvixstore.nix import ContentAddress, KeyRing, NarInfo, hash_modulo
from tvixstore.pathinfo.info import Description

# Checks content beyond its NAR hash, piece by piece, in a thread; raises `CorruptData`.
Proof = Callable[[Iterable[bytes]], None]

# What promises a NAR; the two have the same words for what a signature covers.
Promise = NarInfo | Description


def judge(narinfo: Promise, keys: KeyRing | None) -> Proof | None:
    """Raises `Untrusted` unless `narinfo` can be trusted; `keys` of `None` trusts everything.

    A content-addressed path needs no signature, but then its content has to hash to the address:
    what comes back proves that, where the NAR hash alone does not.
    """
    if keys is None:
        return None
    signer = keys.signer(
        narinfo.store_path,
        narinfo.nar_sha256,
        narinfo.nar_size,
        narinfo.references,
        narinfo.signatures,
    )
    if signer is not None:
        return None
    if narinfo.ca is None:
        raise Untrusted(f"{narinfo.store_path} has {_unsigned(narinfo)}")
    try:
        return prove_content_address(narinfo, narinfo.ca)
    except InvalidData as error:
        raise Untrusted(f"{narinfo.store_path} has {_unsigned(narinfo)}, and {error}") from error


def check_content_address(narinfo: Promise, address: ContentAddress) -> None:
    """Raises `InvalidData` unless the path follows from `address`, name and references, and, where
    the NAR itself is what is addressed, from its hash.
    """
    path = narinfo.store_path
    refers_to_itself = path in narinfo.references
    others = [reference for reference in narinfo.references if reference != path]
    follows = address.store_path(path.name, others, self_reference=refers_to_itself)
    if follows != path:
        raise InvalidData(f"its CA {address} is of {follows}")
    if _addresses_nar(address) and not refers_to_itself:
        if address.hash.digest != narinfo.nar_sha256:
            raise InvalidData("its CA is not its NAR hash")


def prove_content_address(narinfo: Promise, address: ContentAddress) -> Proof | None:
    """What the content has to be held against to be what `address` says, if its NAR hash does not
    prove that. Raises `InvalidData` as `check_content_address` does."""
    check_content_address(narinfo, address)
    if _addresses_nar(address):
        refers_to_itself = narinfo.store_path in narinfo.references
        return partial(_check_modulo, narinfo, address) if refers_to_itself else None
    if address.method == "recursive":
        return partial(_check_nar, narinfo, address)
    return partial(_check_file, narinfo, address)


def _addresses_nar(address: ContentAddress) -> bool:
    return address.method == "recursive" and address.hash.algorithm == "sha256"


def _unsigned(narinfo: Promise) -> str:
    names = sorted({signature.name for signature in narinfo.signatures})
    return f"no trusted signature ({', '.join(names) if names else 'none at all'})"


def _check_modulo(narinfo: Promise, address: ContentAddress, pieces: Iterable[bytes]) -> None:
    digest = hash_modulo(pieces, narinfo.store_path.digits.encode())
    _compare(narinfo, address, digest)


def _check_nar(narinfo: Promise, address: ContentAddress, pieces: Iterable[bytes]) -> None:
    hasher = hashlib.new(address.hash.algorithm)
    for piece in pieces:
        hasher.update(piece)
    _compare(narinfo, address, hasher.digest())


def _check_file(narinfo: Promise, address: ContentAddress, pieces: Iterable[bytes]) -> None:
    hasher = hashlib.new(address.hash.algorithm)
    plain = False
    try:
        for event in _events(pieces):
            match event:
                case Regular(b"", _, executable, _, contents):
                    plain = not executable
                    hasher.update(contents)
                case Contents(data):
                    hasher.update(data)
    except InvalidData as error:
        raise CorruptData(f"{narinfo.store_path} has a NAR that is none: {error}") from error
    if not plain:
        raise CorruptData(f"{narinfo.store_path} is flat by its CA, and no plain file")
    _compare(narinfo, address, hasher.digest())


def _events(pieces: Iterable[bytes]) -> Iterator[Event]:
    reader = NarReader()
    for piece in pieces:
        reader.feed(piece)
        yield from reader.events()
    reader.finish()


def _compare(narinfo: Promise, address: ContentAddress, digest: bytes) -> None:
    if digest != address.hash.digest:
        raise CorruptData(
            f"{narinfo.store_path} has content that does not hash to its CA {address}"
        )
