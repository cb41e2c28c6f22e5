"""NARs from files, held against what is said of them: hashes, content addresses and signatures."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard

from tests.filesystem.places import Shelf, sha256
from tests.nar.trees import File, Link, Tree, cut, nar_of
from tests.pathinfo.samples import STRANGER, TRUSTED, secret_key, store_path
from tvixstore.errors import InvalidData, Untrusted
from tvixstore.filesystem import Claims, NarAdder
from tvixstore.nar import NarIdentity
from tvixstore.nix import ContentAddress, KeyRing, NixHash, SecretKey, StorePath, fingerprint
from tvixstore.nix.content_address import Method
from tvixstore.nix.hashes import Algorithm
from tvixstore.pathinfo import PathInfo
from tvixstore.pools import Pools
from tvixstore.transfer import Trust

TREE: Tree = {b"bin": {b"run": File(b"#!/bin/sh\n", True)}, b"link": Link(b"bin/run")}
NAR = nar_of(TREE)
LIB = store_path("lib")
OF_OURS = Trust(KeyRing([TRUSTED.public_key]))

# Of lz4 and the like, the fill's tests have more.
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda nar: nar,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "gzip": gzip.compress,
    "br": brotli.compress,
}


@pytest.fixture
def adder(shelf: Shelf, pools: Pools, tmp_path: Path) -> NarAdder:
    return NarAdder(shelf.content, shelf.path_infos, pools, tmp_path)


async def pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for piece in cut(data, 50):
        yield piece


async def add(adder: NarAdder, claims: Claims, nar: bytes = NAR, name: str = "a.nar") -> PathInfo:
    async with aclosing(pieces(nar)) as source:
        return await adder.add(source, name, claims)


def addressed(
    method: Method, nar: bytes, data: bytes, algorithm: Algorithm = "sha256", **kept: Any
) -> Claims:
    """What a narinfo says of `nar`, whose address is that of `data`."""
    ca = ContentAddress(method, NixHash(algorithm, hashlib.new(algorithm, data).digest()))
    claims = Claims(path=ca.store_path("a"), ca=ca, nar=NarIdentity(len(nar), sha256(nar)))
    return replace(claims, **kept)


async def check_refused(
    adder: NarAdder, shelf: Shelf, claims: Claims, why: str, nar: bytes = NAR, name: str = "a.nar"
) -> None:
    with pytest.raises(InvalidData, match=why):
        await add(adder, claims, nar, name)
    assert await shelf.paths() == []


TEXT = nar_of(File(b"text\n"))


@pytest.mark.parametrize(
    ("claims", "nar"),
    [
        (addressed("flat", TEXT, b"text\n"), TEXT),
        (addressed("flat", TEXT, b"text\n", "sha1"), TEXT),
        (addressed("text", TEXT, b"text\n"), TEXT),
        (addressed("recursive", NAR, NAR), NAR),
        (addressed("recursive", NAR, NAR, "md5"), NAR),
        (addressed("recursive", NAR, NAR, "sha512"), NAR),
    ],
    ids=lambda each: str(each.ca) if isinstance(each, Claims) else "",
)
async def test_content_that_is_what_its_address_says_is_taken(
    adder: NarAdder, claims: Claims, nar: bytes
) -> None:
    info = await add(adder, claims, nar)
    assert (info.store_path, info.ca) == (claims.path, claims.ca)
    # No signature is needed then.
    assert await add(replace_trust(adder), claims, nar) == info


def replace_trust(adder: NarAdder) -> NarAdder:
    return NarAdder(adder.content, adder.path_infos, adder.pools, adder.spool, trust=OF_OURS)


RUN = nar_of(File(b"text\n", True))


@pytest.mark.parametrize(
    ("claims", "nar", "why"),
    [
        (addressed("flat", TEXT, b"other"), TEXT, "has content that does not hash to its CA"),
        (addressed("flat", TEXT, b"other", "sha1"), TEXT, "does not hash to its CA fixed:sha1"),
        (addressed("flat", RUN, b"text\n"), RUN, "is flat by its CA, and no plain file"),
        (addressed("flat", NAR, b"text\n"), NAR, "is flat by its CA, and no plain file"),
        (addressed("text", TEXT, b"other"), TEXT, "does not hash to its CA text:sha256"),
        (addressed("recursive", NAR, b"other"), NAR, "its CA is not its NAR hash"),
        (addressed("recursive", NAR, b"other", "sha1"), NAR, "does not hash to its CA fixed:r:"),
        (addressed("flat", TEXT, b"text\n", path=LIB), TEXT, "its CA fixed:sha256.* is of "),
        (
            addressed("flat", TEXT, b"text\n", references=(LIB,)),
            TEXT,
            "content addressed by .* cannot have references",
        ),
    ],
)
async def test_content_that_is_not_what_its_address_says_is_refused(
    adder: NarAdder, shelf: Shelf, claims: Claims, nar: bytes, why: str
) -> None:
    await check_refused(adder, shelf, claims, why, nar)


async def test_a_path_that_names_itself_is_addressed_without_that(
    adder: NarAdder, shelf: Shelf
) -> None:
    # What `nix store make-content-addressed` makes: its hash is of the NAR with NULs in its place.
    named = nar_of(File(bytes(32) + b"/bin"))
    digest = hashlib.sha256(named + b"|%d" % named.index(bytes(32) + b"/bin")).digest()
    ca = ContentAddress("recursive", NixHash("sha256", digest))
    path = ca.store_path("a", self_reference=True)
    nar = nar_of(File(path.digits.encode() + b"/bin"))
    claims = Claims(path=path, references=(path,), ca=ca)
    other = nar_of(File(path.digits.encode() + b"/lib"))
    await check_refused(adder, shelf, claims, "does not hash to its CA", other)
    assert (await add(adder, claims, nar)).store_path == path


def claimed(path: StorePath, signers: Sequence[SecretKey], nar: bytes = NAR) -> Claims:
    message = fingerprint(path, sha256(nar), len(nar), ())
    signatures = tuple(signer.sign(message) for signer in signers)
    return Claims(path=path, signatures=signatures, nar=NarIdentity(len(NAR), sha256(NAR)))


async def test_with_keys_one_of_them_has_to_have_signed_it(adder: NarAdder, shelf: Shelf) -> None:
    trusting = replace_trust(adder)
    forged = claimed(LIB, [TRUSTED], nar=b"another")
    for claims in (claimed(LIB, []), claimed(LIB, [STRANGER]), forged):
        with pytest.raises(Untrusted, match=f"{LIB} has no trusted signature"):
            await add(trusting, claims)
    assert await shelf.paths() == []
    both = claimed(LIB, [STRANGER, TRUSTED])
    info = await add(trusting, both)
    assert info.signatures == both.signatures
    # Without, whoever adds it is believed, and signatures are kept as they are.
    assert (await add(adder, claimed(store_path("b"), [STRANGER]))).signatures


async def test_a_signature_does_not_make_an_address_right(adder: NarAdder, shelf: Shelf) -> None:
    claims = addressed("flat", TEXT, b"other")
    assert claims.path is not None
    message = fingerprint(claims.path, sha256(TEXT), len(TEXT), ())
    signed = replace(claims, signatures=(secret_key("trusted-1").sign(message),))
    await check_refused(replace_trust(adder), shelf, signed, "does not hash to its CA", TEXT)


async def test_a_nar_with_another_hash_than_was_said_is_refused(
    adder: NarAdder, shelf: Shelf
) -> None:
    for nar in (NarIdentity(len(NAR), sha256(b"")), NarIdentity(len(NAR) + 8, sha256(NAR))):
        await check_refused(adder, shelf, Claims(path=LIB, nar=nar), "a.nar has a NAR of .* not of")


@pytest.mark.parametrize("compression", PACKERS)
async def test_a_compressed_nar_is_known_by_its_beginning_or_by_its_narinfo(
    adder: NarAdder, compression: str
) -> None:
    packed = PACKERS[compression](NAR)
    said = Claims(path=LIB, nar=NarIdentity(len(NAR), sha256(NAR)), compression=compression)
    assert (await add(adder, said, packed, "-")).nar_sha256 == sha256(NAR)
    # A wrong word for it does no harm where it shows what it is.
    unsaid = replace(said, compression="none")
    name = "a.nar.br" if compression == "br" else "-"
    assert (await add(adder, unsaid, packed, name)).nar_sha256 == sha256(NAR)


@pytest.mark.parametrize("compression", PACKERS)
@pytest.mark.parametrize("name", [True, False])
async def test_a_nar_that_ends_early_or_late_is_refused(
    adder: NarAdder, shelf: Shelf, compression: str, name: bool
) -> None:
    """Whether its path is said, or would follow from what came."""
    claims = Claims(name="a") if name else Claims(path=LIB)
    claims = replace(claims, compression=compression)
    pack = PACKERS[compression]
    packed = pack(NAR)
    for damaged in (packed[:-9], packed[: len(packed) // 2], pack(NAR[:-8]), pack(NAR + bytes(8))):
        await check_refused(adder, shelf, claims, r"\w", damaged)
    await check_refused(adder, shelf, claims, r"\w", packed + b"trailing")
    await check_refused(adder, shelf, claims, r"\w", b"")
