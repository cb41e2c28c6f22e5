"""Signatures, keys, and what is covered, by what real caches signed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nix.samples import golden
from tvixstore.errors import InvalidData
from tvixstore.nix import (
    KeyRing,
    NarInfo,
    PublicKey,
    SecretKey,
    Signature,
    StorePath,
    fingerprint,
)

NIX = golden("nix.json")["narinfo"]
MORE = golden("narinfo-more.json")
NIXOS_KEY = PublicKey.parse(MORE["public_key"])

SECRET = SecretKey.parse(
    # The first vector of RFC 8032, §7.1: the seed, then the public key.
    "test-1:nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg=="
)
PATHS = [StorePath(bytes([n]) * 20, name) for n, name in enumerate(("b", "c", "a"), 1)]


def signer_of(narinfo: NarInfo, ring: KeyRing) -> str | None:
    return ring.signer(
        narinfo.store_path,
        narinfo.nar_sha256,
        narinfo.nar_size,
        narinfo.references,
        narinfo.signatures,
    )


def test_the_golden_narinfo_is_signed_by_its_key() -> None:
    narinfo = NarInfo.parse(NIX["text"])
    key = PublicKey.parse(NIX["public_key"])
    message = fingerprint(
        narinfo.store_path, narinfo.nar_sha256, narinfo.nar_size, narinfo.references
    )
    assert message.decode() == NIX["fingerprint"]
    assert key.verifies(narinfo.signatures[0], message)
    assert signer_of(narinfo, KeyRing([key])) == "feas-1"
    assert signer_of(narinfo, KeyRing()) is None


@pytest.mark.parametrize("row", MORE["wild"], ids=lambda row: row["why"])
def test_narinfos_of_the_wild_are_trusted_by_either_order(row: dict[str, Any]) -> None:
    narinfo = NarInfo.parse(row["text"])
    references = {
        "listed": list(narinfo.references),
        "sorted": sorted(narinfo.references, key=StorePath.order),
    }
    for order, expected in row["fingerprint_by_reference_order"].items():
        message = fingerprint(
            narinfo.store_path, narinfo.nar_sha256, narinfo.nar_size, references[order]
        )
        assert message.decode() == expected["fingerprint"]
        holds = any(NIXOS_KEY.verifies(signature, message) for signature in narinfo.signatures)
        assert holds == expected["cache_nixos_org_signature_holds"]
    assert signer_of(narinfo, KeyRing([NIXOS_KEY])) == NIXOS_KEY.name


def test_a_signature_covers_size_hash_references_and_path() -> None:
    ring = KeyRing([SECRET.public_key])
    good = (PATHS[0], bytes(32), 5, PATHS)
    signatures = [SECRET.sign(fingerprint(*good))]
    assert ring.signer(*good, signatures) == "test-1"
    for changed in (
        (PATHS[1], bytes(32), 5, PATHS),
        (PATHS[0], b"\1" * 32, 5, PATHS),
        (PATHS[0], bytes(32), 6, PATHS),
        (PATHS[0], bytes(32), 5, PATHS[:2]),
    ):
        assert ring.signer(*changed, signatures) is None


def test_sorted_references_count_once_as_with_nix() -> None:
    ring = KeyRing([SECRET.public_key])
    ordered = sorted(PATHS, key=StorePath.order)
    signature = SECRET.sign(fingerprint(PATHS[0], bytes(32), 5, ordered))
    assert ring.signer(PATHS[0], bytes(32), 5, [*PATHS, *PATHS], [signature]) == "test-1"


def test_a_key_of_another_name_verifies_nothing() -> None:
    signature = SECRET.sign(b"message")
    other_name = PublicKey("test-2", SECRET.public_key.data)
    assert SECRET.public_key.verifies(signature, b"message")
    assert not other_name.verifies(signature, b"message")
    assert not SECRET.public_key.verifies(Signature("test-1", bytes(64)), b"message")


def test_several_keys_may_share_a_name() -> None:
    stranger = PublicKey("test-1", NIXOS_KEY.data)
    signature = SECRET.sign(b"message")
    for keys in ([stranger, SECRET.public_key], [SECRET.public_key, stranger]):
        assert KeyRing(keys).verifier(b"message", [signature]) == "test-1"
    assert KeyRing([stranger]).verifier(b"message", [signature]) is None


def test_signing_is_that_of_the_rfc() -> None:
    assert SECRET.sign(b"").data.hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_keys_and_signatures_are_written_as_they_were_read() -> None:
    assert str(NIXOS_KEY) == MORE["public_key"]
    signature = SECRET.sign(b"message")
    assert Signature.parse(str(signature)) == signature


def test_a_secret_key_tells_nobody() -> None:
    encoded = "nWGxne"
    assert encoded not in repr(SECRET)
    assert encoded not in str(SECRET)
    with pytest.raises(InvalidData) as refusal:
        SecretKey.parse(f"test-1:{encoded}==")
    assert encoded not in str(refusal.value)


def test_a_secret_key_with_another_public_half_is_refused() -> None:
    with pytest.raises(InvalidData, match="public half"):
        SecretKey("test-1", SECRET.data[:32] + NIXOS_KEY.data)


@pytest.mark.parametrize(
    "text",
    ["", "name", "name:", ":" + "A" * 86 + "==", "name:AAAA", "name:*", "na\nme:AAAA", "é:é"],
)
def test_what_is_no_key_and_no_signature_is_refused(text: str) -> None:
    for kind in (Signature, PublicKey, SecretKey):
        with pytest.raises(InvalidData):
            kind.parse(text)
